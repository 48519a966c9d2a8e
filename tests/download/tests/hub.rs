//! Files of models by name, from a hub on the loopback interface that behaves and misbehaves.

#[path = "hub/families.rs"]
mod families;
#[path = "hub/pipelines.rs"]
mod pipelines;
#[path = "hub/sound_and_video.rs"]
mod sound_and_video;

use aigc_core::{Error, Result, device, hub::Hub, hub_model::ModelFiles};
use aigc_tests::own_fixtures;
use aigc_text::{Gpt2, PretrainedModel, tokenizer};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const NEWER: &str = "89abcdef0123456789abcdef0123456789abcdef";
const REPO: &str = "org/tiny";
const FOLDER: &str = "models--org--tiny";
/// What Python's hashlib gives [`large`].
const SHA256: &str = "fa7deae4b0504401a056ca3b1e6007902a7e681efda07fd7ca8819760caeff95";

fn large() -> Vec<u8> {
    (0..300_000u32)
        .map(|i| (u64::from(i) * u64::from(i) % 251) as u8)
        .collect()
}

/// What the hub does wrong.
#[derive(Clone, Copy, Default, PartialEq)]
enum Fault {
    #[default]
    None,
    /// Closes the connection half-way through the large file, once.
    BreaksOff,
    /// Answers ranges with 416.
    NoRanges,
    /// Sends other bytes than promised.
    Alters,
    /// Has no time.
    Busy,
    /// Sends every question on and on.
    Circle,
    /// Answers as a network does that wants one to log in.
    Portal,
    Says(u16, &'static str),
}

/// What a server has: for each file its ETag and what it holds. One with 64 digits comes from
/// another host.
#[derive(Clone, Default)]
struct Site {
    commit: String,
    files: BTreeMap<String, (String, Vec<u8>)>,
    /// Where large files are.
    elsewhere: String,
    fault: Fault,
}

impl Site {
    fn new(files: &[(&str, &str, &[u8])]) -> Self {
        let files = files
            .iter()
            .map(|(name, etag, content)| (name.to_string(), (etag.to_string(), content.to_vec())));
        Self {
            commit: COMMIT.into(),
            files: files.collect(),
            ..Self::default()
        }
    }

    /// A small file, one in a directory within a directory, and a large one.
    fn usual() -> Self {
        Self::new(&[
            ("config.json", &"a".repeat(40), b"{}"),
            ("one/two/empty file", &"b".repeat(40), b""),
            ("large.bin", SHA256, &large()),
        ])
    }
}

struct Server {
    url: String,
    log: Arc<Mutex<Vec<String>>>,
    site: Arc<Mutex<Site>>,
}

impl Server {
    /// Of a host that is called `localhost` or `127.0.0.1`.
    fn new(host: &str, site: Site) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{host}:{}", listener.local_addr().unwrap().port());
        let (log, site) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(site)));
        let server = Self {
            url,
            log: log.clone(),
            site: site.clone(),
        };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // The client may close first; that is its right.
                let _ = answer(stream, &site, &log);
            }
        });
        server
    }

    /// The hub, and the other host that has its large files.
    fn pair(mut site: Site) -> (Self, Self) {
        let other = Self::new("localhost", site.clone());
        site.elsewhere = other.url.clone();
        (Self::new("127.0.0.1", site), other)
    }

    fn hub(&self, cache: &Path) -> Hub {
        Hub {
            endpoint: self.url.clone(),
            cache: cache.into(),
            token: Some("hf_secret".into()),
            offline: false,
        }
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn change(&self, change: impl FnOnce(&mut Site)) {
        change(&mut self.site.lock().unwrap());
    }
}

fn answer(
    mut stream: TcpStream,
    site: &Mutex<Site>,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let (mut first, mut from, mut token) = (String::new(), 0, "");
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        if first.is_empty() {
            first = line.trim_end_matches(" HTTP/1.1").to_string();
        }
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
        if line.to_lowercase() == "authorization: bearer hf_secret" {
            token = " token";
        }
        if line.is_empty() {
            break;
        }
    }
    let range = if from > 0 {
        format!(" from {from}")
    } else {
        String::new()
    };
    log.lock().unwrap().push(format!("{first}{range}{token}"));
    let mut locked = site.lock().unwrap();
    let site = locked.clone();
    let (method, path) = first.split_once(' ').unwrap_or_default();
    let mut reply = |status: &str, headers: &str, body: &[u8]| {
        let length = if headers.contains("Content-Length") {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        stream.write_all(
            format!("HTTP/1.1 {status}\r\n{length}{headers}Connection: close\r\n\r\n").as_bytes(),
        )?;
        stream.write_all(if method == "HEAD" { b"" } else { body })
    };
    match site.fault {
        Fault::Busy => return reply("503 Service Unavailable", "", b""),
        Fault::Circle => {
            return reply(
                "307 Temporary Redirect",
                &format!("Location: {path}\r\n"),
                b"",
            );
        }
        Fault::Portal => return reply("200 OK", "ETag: \"abc\"\r\n", b"<html>log in</html>"),
        Fault::Says(status, code) => {
            return reply(
                &status.to_string(),
                &format!("X-Error-Code: {code}\r\n"),
                b"",
            );
        }
        _ => {}
    }
    let commit = format!("X-Repo-Commit: {}\r\n", site.commit);
    let name = match path.split("/resolve/").collect::<Vec<_>>()[..] {
        // An old name of the repository, as `gpt2` is one.
        ["/tiny", rest] => {
            let location = format!("{commit}Location: /{REPO}/resolve/{rest}\r\n");
            return reply("307 Temporary Redirect", &location, b"");
        }
        ["/org/tiny", rest] => rest
            .split_once('/')
            .unwrap_or_default()
            .1
            .replace("%20", " "),
        _ => return reply("404 Not Found", "X-Error-Code: RepoNotFound\r\n", b""),
    };
    let Some((etag, content)) = site.files.get(&name) else {
        return reply(
            "404 Not Found",
            &format!("{commit}X-Error-Code: EntryNotFound\r\n"),
            b"",
        );
    };
    let tags = match etag.len() {
        64 => format!(
            "X-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {}\r\nETag: \"other\"\r\n",
            content.len()
        ),
        _ => format!("ETag: W/\"{etag}\"\r\n"),
    };
    let headers = format!("{commit}{tags}");
    if etag.len() == 64 && !site.elsewhere.is_empty() {
        let location = format!("{headers}Location: {}{path}\r\n", site.elsewhere);
        return reply("302 Found", &location, b"redirected");
    }
    if from > 0 && site.fault == Fault::NoRanges {
        return reply("416 Range Not Satisfiable", "", b"");
    }
    let mut content = content.clone();
    if site.fault == Fault::Alters && !content.is_empty() {
        content[0] ^= 1;
    }
    if site.fault == Fault::BreaksOff && method == "GET" && content.len() > 1000 {
        locked.fault = Fault::None;
        let headers = format!("{headers}Content-Length: {}\r\n", content.len());
        return reply("200 OK", &headers, &content[..content.len() / 2]);
    }
    let status = if from > 0 {
        "206 Partial Content"
    } else {
        "200 OK"
    };
    reply(status, &headers, &content[from.min(content.len())..])
}

fn get(hub: &Hub, name: &str) -> Result<Option<PathBuf>> {
    hub.download(REPO, "main", name, &mut |_, _, _| {})
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn refused<T: std::fmt::Debug>(result: Result<T>) -> String {
    let error = result.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Download { .. } | Error::InvalidArgument { .. }
        ),
        "{error:?}"
    );
    assert!(!error.to_string().contains("hf_secret"), "{error}");
    error.to_string()
}

#[test]
fn cache_layout_matches_hub() {
    let folder = tempfile::tempdir().unwrap();
    let (server, other) = Server::pair(Site::usual());
    let hub = server.hub(folder.path());
    let root = folder.path().join(FOLDER);
    let (mut seen, snapshot) = (Vec::new(), root.join("snapshots").join(COMMIT));
    let path = hub.download(REPO, "main", "large.bin", &mut |name, have, all| {
        seen.push((name.to_string(), have, all))
    });
    let path = path.unwrap().unwrap();
    assert_eq!(
        (&path, fs::read(&path).unwrap()),
        (&snapshot.join("large.bin"), large())
    );
    assert_eq!(
        *seen.last().unwrap(),
        ("large.bin".to_string(), 300_000, 300_000)
    );
    // The token is for the hub alone.
    let (head, tail) = (
        "HEAD /org/tiny/resolve/main/large.bin",
        format!("/org/tiny/resolve/{COMMIT}/large.bin"),
    );
    assert_eq!(
        server.log(),
        [format!("{head} token"), format!("GET {tail} token")]
    );
    assert_eq!(other.log(), [format!("GET {tail}")]);
    let deep = get(&hub, "one/two/empty file").unwrap().unwrap();
    assert_eq!(fs::read(&deep).unwrap(), b"");
    assert!(server.log()[0].contains("/main/one/two/empty%20file"));
    #[cfg(unix)]
    {
        assert_eq!(
            fs::read_link(&path).unwrap(),
            Path::new("../../blobs").join(SHA256)
        );
        assert_eq!(
            fs::read_link(&deep).unwrap(),
            Path::new("../../../../blobs").join("b".repeat(40))
        );
        assert_eq!(
            names(&root.join("blobs")),
            ["b".repeat(40), SHA256.to_string()]
        );
    }
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(names(&folder.path().join(".locks").join(FOLDER)).len(), 2);
    // The second time there is one question, and none about a commit.
    assert_eq!(get(&hub, "large.bin").unwrap(), Some(path.clone()));
    assert_eq!(server.log(), [format!("{head} token")]);
    assert_eq!(
        hub.download(REPO, COMMIT, "large.bin", &mut |_, _, _| {})
            .unwrap(),
        Some(path.clone())
    );
    assert_eq!(
        hub.try_load_from_cache(REPO, "main", "large.bin").unwrap(),
        Some(path)
    );
    assert_eq!((server.log(), other.log()), (vec![], vec![]));
    // Something else by that name, from now on; what holds the same is not fetched again.
    server.change(|site| {
        site.commit = NEWER.into();
        site.files.insert(
            "config.json".into(),
            ("c".repeat(40), b"{\"new\": 1}".to_vec()),
        );
    });
    let newer = hub
        .snapshot_download(
            REPO,
            "main",
            &["config.json", "none.txt", "large.bin"],
            &mut |_, _, _| {},
        )
        .unwrap();
    assert_eq!(newer, root.join("snapshots").join(NEWER));
    assert_eq!(names(&newer), ["config.json", "large.bin"]);
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), NEWER);
    // All of one commit, whatever becomes of the revision meanwhile.
    let log = server.log();
    assert!(
        log[0].contains("/main/config.json") && log[1..].iter().all(|line| line.contains(NEWER)),
        "{log:?}"
    );
    if cfg!(unix) {
        assert_eq!(other.log(), [""; 0]);
    }
    hub.snapshot_download(
        REPO,
        "main",
        &["config.json", "none.txt", "large.bin"],
        &mut |_, _, _| {},
    )
    .unwrap();
    assert_eq!(
        server.log(),
        ["HEAD /org/tiny/resolve/main/config.json token"]
    );
}

#[test]
fn redirects_and_revisions_with_slash_resolve() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _other) = Server::pair(Site::usual());
    let hub = server.hub(folder.path());
    let path = hub
        .download("tiny", "refs/pr/1", "large.bin", &mut |_, _, _| {})
        .unwrap()
        .unwrap();
    assert_eq!(fs::read(path).unwrap(), large());
    let log = server.log();
    assert_eq!(log[0], "HEAD /tiny/resolve/refs%2Fpr%2F1/large.bin token");
    assert_eq!(
        log[1],
        "HEAD /org/tiny/resolve/refs%2Fpr%2F1/large.bin token"
    );
    assert_eq!(
        fs::read_to_string(folder.path().join("models--tiny/refs/refs/pr/1")).unwrap(),
        COMMIT
    );
}

#[test]
fn interrupted_download_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(
        "127.0.0.1",
        Site {
            fault: Fault::BreaksOff,
            ..Site::usual()
        },
    );
    let path = get(&server.hub(folder.path()), "large.bin")
        .unwrap()
        .unwrap();
    assert_eq!(fs::read(path).unwrap(), large());
    assert!(server.log()[2].contains("from 150000"));
    // And where a server will have none of it, from the beginning.
    let folder = tempfile::tempdir().unwrap();
    let blobs = folder.path().join(FOLDER).join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{SHA256}.part")), "begun").unwrap();
    let server = Server::new(
        "127.0.0.1",
        Site {
            fault: Fault::NoRanges,
            ..Site::usual()
        },
    );
    let path = get(&server.hub(folder.path()), "large.bin")
        .unwrap()
        .unwrap();
    assert_eq!(fs::read(path).unwrap(), large());
    let log = server.log();
    assert!(
        log[1].contains("from 5") && !log[2].contains("from"),
        "{log:?}"
    );
}

#[test]
fn concurrent_downloads_fetch_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new("127.0.0.1", Site::usual());
    let hub = server.hub(folder.path());
    thread::scope(|scope| {
        let all: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| get(&hub, "large.bin").unwrap().unwrap()))
            .collect();
        for path in all {
            assert_eq!(fs::read(path.join().unwrap()).unwrap(), large());
        }
    });
    assert_eq!(
        server
            .log()
            .iter()
            .filter(|line| line.starts_with("GET"))
            .count(),
        1
    );
}

#[test]
fn altered_downloads_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(
        "127.0.0.1",
        Site {
            fault: Fault::Alters,
            ..Site::usual()
        },
    );
    let hub = server.hub(folder.path());
    let text = refused(get(&hub, "large.bin"));
    assert!(
        text.contains("SHA-256") && text.contains("/large.bin"),
        "{text}"
    );
    let root = folder.path().join(FOLDER);
    assert_eq!(
        (names(&root.join("blobs")), names(&root.join("snapshots"))),
        (vec![], vec![])
    );
    assert!(!root.join("refs/main").exists());
    // Begun by something else.
    fs::write(root.join("blobs").join(format!("{SHA256}.part")), "other").unwrap();
    server.change(|site| site.fault = Fault::None);
    assert_eq!(
        fs::read(get(&hub, "large.bin").unwrap().unwrap()).unwrap(),
        large()
    );
}

#[test]
fn hub_errors_name_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new("127.0.0.1", Site::usual());
    let hub = server.hub(folder.path());
    assert_eq!(get(&hub, "none.txt").unwrap(), None);
    assert!(
        refused(hub.download("org/none", "main", "a", &mut |_, _, _| {}))
            .contains("org/none does not exist")
    );
    let text =
        refused(hub.snapshot_download(REPO, "main", &["none.txt", "no.txt"], &mut |_, _, _| {}));
    assert!(text.contains("none of none.txt, no.txt"), "{text}");
    for (status, code, expected) in [
        (404, "RevisionNotFound", "no revision \"main\""),
        (401, "RepoNotFound", "set HF_TOKEN"),
        (401, "GatedRepo", "accept the licence at http://127.0.0.1"),
        (403, "GatedRepo", "set HF_TOKEN"),
        (401, "", "HF_TOKEN"),
        (403, "", "http status: 403"),
        (404, "", "http status: 404"),
    ] {
        server.change(|site| site.fault = Fault::Says(status, code));
        let text = refused(get(&hub, "config.json"));
        assert!(text.contains(expected), "{status} {code}: {text}");
    }
    server.change(|site| site.fault = Fault::Circle);
    assert!(refused(get(&hub, "config.json")).contains("redirected more than 5 times"));
    for endpoint in ["", "nonsense", "http://", "http://a b"] {
        refused(get(
            &Hub {
                endpoint: endpoint.into(),
                ..hub.clone()
            },
            "config.json",
        ));
    }
    let token = Some("hf_secret\nline".into());
    assert!(refused(get(&Hub { token, ..hub }, "config.json")).contains("HF_TOKEN"));
}

#[test]
fn cache_serves_without_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _other) = Server::pair(Site::usual());
    let hub = server.hub(folder.path());
    let wanted = ["config.json", "large.bin", "none.txt"];
    let there = hub
        .snapshot_download(REPO, "main", &wanted, &mut |_, _, _| {})
        .unwrap();
    server.log();
    let offline = Hub {
        offline: true,
        ..hub.clone()
    };
    let nobody = Hub {
        endpoint: "http://127.0.0.1:1".into(),
        ..hub.clone()
    };
    let check = |hub: &Hub, why: &str| {
        assert_eq!(
            get(hub, "config.json").unwrap(),
            Some(there.join("config.json"))
        );
        assert_eq!(get(hub, "none.txt").unwrap(), None);
        assert_eq!(
            hub.snapshot_download(
                REPO,
                "main",
                &["one/two/empty file", "large.bin"],
                &mut |_, _, _| {}
            )
            .unwrap(),
            there
        );
        for text in [
            refused(get(hub, "one/two/empty file")),
            refused(hub.snapshot_download(REPO, "other", &wanted, &mut |_, _, _| {})),
            refused(hub.download("org/none", "main", "a", &mut |_, _, _| {})),
        ] {
            let root = folder.path().join("models--org--").display().to_string();
            for expected in [
                why,
                "the file is not in the cache",
                "copy that directory",
                &root,
            ] {
                assert!(text.contains(expected), "{text}");
            }
        }
    };
    check(&offline, "HF_HUB_OFFLINE");
    assert_eq!(server.log(), [""; 0]);
    check(&nobody, "could not be reached");
    server.change(|site| site.fault = Fault::Busy);
    check(&hub, "503");
    server.change(|site| site.fault = Fault::Portal);
    check(&hub, "names no commit");
}

#[test]
fn escaping_names_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new("127.0.0.1", Site::usual());
    let hub = server.hub(folder.path());
    for name in ["../a", "/etc/passwd", "a/../../b", "", "a\\b", "C:a"] {
        assert!(refused(get(&hub, name)).contains("file name"));
        assert!(refused(hub.try_load_from_cache(REPO, "main", name)).contains("file name"));
        assert!(
            refused(hub.download(REPO, name, "config.json", &mut |_, _, _| {}))
                .contains("revision")
        );
    }
    for repo in [
        "",
        "a/b/c",
        "../a",
        "/a",
        "a/",
        "..",
        "a--b",
        ".a",
        "a b",
        "a\u{e9}",
        &"a".repeat(97),
    ] {
        assert!(
            refused(hub.download(repo, "main", "config.json", &mut |_, _, _| {}))
                .contains("repository"),
            "{repo}"
        );
    }
    assert_eq!(server.log(), [""; 0]);
    for commit in [
        "../../../evil",
        "main",
        "",
        &"A".repeat(40),
        &"a".repeat(41),
    ] {
        server.change(|site| site.commit = commit.into());
        let text = refused(get(&hub, "config.json"));
        assert!(text.contains("names the commit"), "{text}");
    }
    // Another commit than that asked for.
    server.change(|site| site.commit = NEWER.into());
    assert!(refused(hub.download(REPO, COMMIT, "config.json", &mut |_, _, _| {})).contains(NEWER));
    for etag in ["../../evil", "", "a/b", "a.b", "..", &"a".repeat(200)] {
        server.change(|site| *site = Site::new(&[("config.json", etag, b"{}")]));
        let text = refused(get(&hub, "config.json"));
        assert!(text.contains("ETag"), "{text}");
    }
    assert_eq!(names(folder.path()), [""; 0]);
}

/// A server that has a directory of the fixtures, as the hub has it.
fn model(folder: &str) -> Site {
    let mut site = Site {
        commit: COMMIT.into(),
        ..Site::default()
    };
    let folder = own_fixtures().join("text/gpt2-files").join(folder);
    for (i, name) in names(&folder).into_iter().enumerate() {
        let content = fs::read(folder.join(&name)).unwrap();
        site.files.insert(name, (format!("{i:040x}"), content));
    }
    // Every byte a token, and one pair of them.
    let saved = tempfile::tempdir().unwrap();
    let texts = ["hold the line", "hold the door"].map(String::from);
    let trained = tokenizer::BpeTokenizer::train(texts.into_iter(), 257).unwrap();
    tokenizer::Tokenizer::save_pretrained(&trained, saved.path()).unwrap();
    for name in names(saved.path()) {
        let content = fs::read(saved.path().join(&name)).unwrap();
        site.files.insert(name, ("e".repeat(40), content));
    }
    site
}

#[test]
fn snapshot_opens_as_a_model() {
    let device = device::device("flex").unwrap();
    for (kind, weights) in [
        ("whole", vec!["model.safetensors"]),
        (
            "shards",
            vec![
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ],
        ),
        ("bin", vec!["pytorch_model.bin"]),
        (
            "bin-shards",
            vec![
                "pytorch_model-00001-of-00002.bin",
                "pytorch_model-00002-of-00002.bin",
            ],
        ),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new("127.0.0.1", model(kind));
        let hub = server.hub(cache.path());
        let folder = Gpt2::snapshot(&hub, REPO, "main", &mut |_, _, _| {}).unwrap();
        assert!(
            weights.iter().all(|name| folder.join(name).is_file()),
            "{kind}"
        );
        let opened = Gpt2::from_pretrained(&folder, &device).unwrap();
        let expected =
            Gpt2::from_pretrained(own_fixtures().join("text/gpt2-files").join(kind), &device)
                .unwrap();
        assert_eq!(
            aigc_tests::bits(&*opened),
            aigc_tests::bits(&*expected),
            "{kind}"
        );
        let words = tokenizer::from_pretrained(&folder).unwrap();
        assert_eq!(
            words.decode(&words.encode("hold the door").unwrap()),
            "hold the door"
        );
        // Again with one question, and without any.
        server.log();
        assert_eq!(
            Gpt2::snapshot(&hub, REPO, "main", &mut |_, _, _| {}).unwrap(),
            folder
        );
        assert_eq!(
            server.log(),
            ["HEAD /org/tiny/resolve/main/config.json token"]
        );
        let offline = Hub {
            offline: true,
            ..hub
        };
        assert_eq!(
            Gpt2::snapshot(&offline, REPO, "main", &mut |_, _, _| {}).unwrap(),
            folder
        );
    }
}

/// The names in an index are those of files beside it.
#[test]
fn shards_of_an_index_in_a_subdirectory_are_downloaded() {
    let mut site = model("shards");
    let moved = std::mem::take(&mut site.files).into_iter();
    site.files = moved
        .map(|(name, file)| (format!("unet/{name}"), file))
        .collect();
    let (cache, server) = (tempfile::tempdir().unwrap(), Server::new("127.0.0.1", site));
    let files = ModelFiles {
        directories: &["transformer", "unet"],
        config_files: &["config.json"],
        stems: &["model"],
        ..ModelFiles::default()
    };
    let hub = server.hub(cache.path());
    let folder = files
        .snapshot(&hub, REPO, "main", |_| Ok(()), &mut |_, _, _| {})
        .unwrap();
    assert!(folder.ends_with("unet"), "{}", folder.display());
    for i in 1..3 {
        let shard = format!("model-0000{i}-of-00002.safetensors");
        assert!(folder.join(&shard).is_file(), "{shard}");
    }
}

#[test]
fn snapshot_checks_config_before_weights() {
    let fetch = |site: Site| {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new("127.0.0.1", site);
        let error =
            Gpt2::snapshot(&server.hub(cache.path()), REPO, "main", &mut |_, _, _| {}).unwrap_err();
        assert!(
            !server
                .log()
                .iter()
                .any(|line| line.starts_with("GET") && line.contains("model"))
        );
        error.to_string()
    };
    let mut other = model("whole");
    other.files.insert(
        "config.json".into(),
        ("f".repeat(40), br#"{"model_type": "bert"}"#.to_vec()),
    );
    assert!(fetch(other).contains("config.json"));
    let mut bare = model("whole");
    bare.files.remove("config.json");
    assert!(fetch(bare).contains("has no config.json"));
    let mut light = model("whole");
    light.files.remove("model.safetensors");
    assert!(fetch(light).contains("has no model.safetensors, model.safetensors.index.json"));
    // An index that leads out of its directory, and one that names what is not there.
    for (shard, expected) in [
        ("../a", "no file beside it"),
        ("gone.bin", "has no gone.bin"),
    ] {
        let mut site = model("whole");
        site.files.remove("model.safetensors");
        let index = format!(r#"{{"weight_map": {{"wte": "{shard}"}}}}"#).into_bytes();
        site.files.insert(
            "pytorch_model.bin.index.json".into(),
            ("d".repeat(40), index),
        );
        let (cache, server) = (tempfile::tempdir().unwrap(), Server::new("127.0.0.1", site));
        let error = Gpt2::snapshot(&server.hub(cache.path()), REPO, "main", &mut |_, _, _| {})
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}
