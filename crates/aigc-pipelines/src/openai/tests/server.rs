//! A server on the loopback interface that answers by a script, well or badly.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// What the server does with a request.
#[derive(Clone)]
pub(super) enum Reply {
    /// Writes these bytes and closes the connection.
    Bytes(Vec<u8>),
    /// Writes these bytes and keeps the connection open.
    Hold(Vec<u8>),
}

/// An answer with a status, headers (`name: value`) and a body.
pub(super) fn reply(status: u16, headers: &[&str], body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n").into_bytes();
    for header in headers {
        bytes.extend_from_slice(format!("{header}\r\n").as_bytes());
    }
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    Reply::Bytes(bytes)
}

/// A request that the server received.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Received {
    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        lines
            .filter_map(|line| line.split_once(':'))
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A running server; it stops when it is dropped.
pub(super) struct Server {
    port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    /// Connections that the client has closed while the server held them.
    hung_up: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A server that answers the k-th request with the k-th reply, and further ones with the last.
    pub(super) fn new(replies: Vec<Reply>) -> Self {
        Self::answering(move |k, _| replies[k.min(replies.len() - 1)].clone())
    }

    /// A server whose answers depend on the number of the request and on the request.
    pub(super) fn answering(
        answer: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (hung_up, stopped) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let state = (received.clone(), hung_up.clone(), stopped.clone());
        let answer = Arc::new(answer);
        let thread = thread::spawn(move || {
            let (received, hung_up, stopped) = state;
            let mut open = vec![];
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (received, hung_up) = (received.clone(), hung_up.clone());
                let (answer, stopped) = (answer.clone(), stopped.clone());
                let Ok(stream) = stream else { continue };
                open.push(thread::spawn(move || {
                    serve(stream, &received, &hung_up, &stopped, &*answer);
                }));
            }
            for thread in open {
                let _ = thread.join();
            }
        });
        Self {
            port,
            received,
            hung_up,
            stopped,
            thread: Some(thread),
        }
    }

    /// Base URL of the API.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// The requests so far.
    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Connections that the client has closed while the server held them.
    pub(super) fn hung_up(&self) -> usize {
        self.hung_up.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    mut stream: TcpStream,
    received: &Mutex<Vec<Received>>,
    hung_up: &AtomicUsize,
    stopped: &AtomicBool,
    answer: &dyn Fn(usize, &Received) -> Reply,
) {
    let Some(request) = read_request(&mut stream) else {
        return;
    };
    let number = {
        let mut received = received.lock().unwrap();
        received.push(request.clone());
        received.len() - 1
    };
    match answer(number, &request) {
        Reply::Bytes(bytes) => {
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Both);
        }
        Reply::Hold(bytes) => {
            let _ = stream.write_all(&bytes);
            let short = Some(Duration::from_millis(10));
            stream.set_read_timeout(short).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(0) = stream.read(&mut [0]) {
                    hung_up.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<Received> {
    let (mut bytes, mut piece) = (vec![], [0; 4096]);
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&piece[..n]),
            _ => return None,
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut request = Received { head, body: vec![] };
    let length: usize = request
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    request.body = bytes.split_off(end);
    while request.body.len() < length {
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => request.body.extend_from_slice(&piece[..n]),
            _ => return None,
        }
    }
    Some(request)
}
