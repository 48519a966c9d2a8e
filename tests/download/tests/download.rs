//! Downloads, against a server on the loopback interface that behaves and misbehaves.

use aigc_core::{
    Error,
    data::{
        Dataset,
        download::{MNIST_SOURCES, RemoteFile, download_files, mnist_files},
        idx::{MnistDataset, Split},
    },
};
use aigc_tests::folder_from;
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

/// How the server answers.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// As it should.
    Good,
    /// Closes the connection half-way; goes on where asked.
    BreaksOff,
    /// Closes half-way and always starts from the beginning.
    BreaksOffWithoutRanges,
    /// Sends other bytes than promised.
    Alters,
    /// Sends more than promised.
    TooLong,
    /// Has nothing.
    NotFound,
}

struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

fn serve(files: HashMap<String, Vec<u8>>, manner: Manner) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = requests.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The client may close first; that is its right.
            let _ = answer(stream, &files, manner, &log);
        }
    });
    Server { url, requests }
}

fn answer(
    mut stream: TcpStream,
    files: &HashMap<String, Vec<u8>>,
    manner: Manner,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let (mut path, mut from) = (String::new(), 0);
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        if let Some(rest) = line.strip_prefix("GET /") {
            path = rest.split(' ').next().unwrap_or_default().to_string();
        }
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    log.lock().unwrap().push(format!("{path} from {from}"));
    let Some(content) = files.get(&path).filter(|_| manner != Manner::NotFound) else {
        return stream.write_all(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    };
    let mut content = content.clone();
    match manner {
        Manner::Alters => content[0] ^= 1,
        Manner::TooLong => content.extend([0; 1000]),
        _ => {}
    }
    if manner == Manner::BreaksOffWithoutRanges {
        from = 0;
    }
    let status = if from > 0 {
        "206 Partial Content"
    } else {
        "200 OK"
    };
    let body = &content[from..];
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    let breaks = matches!(manner, Manner::BreaksOff | Manner::BreaksOffWithoutRanges) && from == 0;
    stream.write_all(if breaks {
        &body[..body.len() / 2]
    } else {
        body
    })
}

/// `a.bin`, with the digest that Python's hashlib gives [`content`].
fn a_bin() -> RemoteFile {
    let sha256 = "fa7deae4b0504401a056ca3b1e6007902a7e681efda07fd7ca8819760caeff95";
    RemoteFile {
        name: "a.bin".into(),
        bytes: 300_000,
        sha256: sha256.into(),
    }
}

fn content() -> Vec<u8> {
    (0..300_000u32)
        .map(|i| (u64::from(i) * u64::from(i) % 251) as u8)
        .collect()
}

fn get(server: &Server, folder: &Path) -> Result<Vec<u64>, Error> {
    let mut seen = Vec::new();
    let files = [a_bin()];
    download_files(&[&server.url], &files, folder, &mut |_, have, _| {
        seen.push(have)
    })?;
    Ok(seen)
}

#[test]
fn download_reports_progress_and_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(HashMap::from([("a.bin".into(), content())]), Manner::Good);
    let seen = get(&server, folder.path()).unwrap();
    assert_eq!(
        std::fs::read(folder.path().join("a.bin")).unwrap(),
        content()
    );
    assert!(seen.is_sorted() && *seen.last().unwrap() == 300_000);
    get(&server, folder.path()).unwrap();
    assert_eq!(server.requests.lock().unwrap().len(), 1);
    // A file that was altered on disk is fetched again.
    std::fs::write(folder.path().join("a.bin"), "spoilt").unwrap();
    get(&server, folder.path()).unwrap();
    assert_eq!(
        std::fs::read(folder.path().join("a.bin")).unwrap(),
        content()
    );
}

#[test]
fn interrupted_download_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(
        HashMap::from([("a.bin".into(), content())]),
        Manner::BreaksOff,
    );
    get(&server, folder.path()).unwrap();
    assert_eq!(
        std::fs::read(folder.path().join("a.bin")).unwrap(),
        content()
    );
    assert_eq!(
        *server.requests.lock().unwrap(),
        ["a.bin from 0", "a.bin from 150000"]
    );
}

#[test]
fn partial_file_resumes() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.bin.part"), &content()[..1000]).unwrap();
    let server = serve(HashMap::from([("a.bin".into(), content())]), Manner::Good);
    get(&server, folder.path()).unwrap();
    assert_eq!(*server.requests.lock().unwrap(), ["a.bin from 1000"]);
    assert_eq!(
        std::fs::read(folder.path().join("a.bin")).unwrap(),
        content()
    );
    assert!(!folder.path().join("a.bin.part").exists());
}

#[test]
fn faulty_servers_are_named_and_leave_no_file() {
    for (manner, expected) in [
        (Manner::BreaksOffWithoutRanges, "interrupted after 150000"),
        (Manner::Alters, "SHA-256"),
        (Manner::TooLong, "300001 bytes"),
        (Manner::NotFound, "404"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let server = serve(HashMap::from([("a.bin".into(), content())]), manner);
        let error = get(&server, folder.path()).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains(&server.url),
            "{error}"
        );
        assert!(
            error.contains("Without a connection, put the file into"),
            "{error}"
        );
        assert!(!folder.path().join("a.bin").exists());
    }
}

#[test]
fn next_source_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let (bad, good) = (
        serve(HashMap::new(), Manner::NotFound),
        serve(HashMap::from([("a.bin".into(), content())]), Manner::Good),
    );
    let nobody = "http://127.0.0.1:1/";
    download_files(
        &[nobody, &bad.url, &good.url],
        &[a_bin()],
        folder.path(),
        &mut |_, _, _| {},
    )
    .unwrap();
    assert_eq!(
        std::fs::read(folder.path().join("a.bin")).unwrap(),
        content()
    );
}

/// The real files through the real list of sizes and checksums.
#[test]
fn mnist_downloads_with_listed_checksums() {
    assert!(
        MNIST_SOURCES
            .iter()
            .all(|source| source.starts_with("https://") && source.ends_with('/'))
    );
    let Some(data) = folder_from("AIGC_DATA") else {
        return;
    };
    let names: Vec<String> = mnist_files().into_iter().map(|f| f.name).collect();
    let files = names
        .iter()
        .map(|n| {
            (
                n.clone(),
                std::fs::read(data.join("mnist").join(n)).unwrap(),
            )
        })
        .collect();
    let (folder, server) = (tempfile::tempdir().unwrap(), serve(files, Manner::Good));
    download_files(
        &[&server.url],
        &mnist_files(),
        folder.path(),
        &mut |_, _, _| {},
    )
    .unwrap();
    let test = MnistDataset::from_dir(folder.path(), Split::Test).unwrap();
    assert_eq!((test.len(), test.get(0).unwrap().label), (10_000, Some(7)));
}
