//! The commands of the documentation run, and the names in them exist.

mod common;

use aigc_core::{
    data::digits,
    output::{ImageGrid, save_image},
};
use common::{finish, program, small_mnist};
use serde_json::Value;
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README.md and every page in docs/.
fn pages() -> Vec<(String, String)> {
    let docs = std::fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|e| e.unwrap().path());
    let paths = docs
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
        .chain([root().join("README.md")]);
    paths
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                std::fs::read_to_string(path).unwrap(),
            )
        })
        .collect()
}

/// The code blocks of a page marked with `language`.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_string())
        .collect()
}

/// A directory in which the paths of the documentation exist: a small MNIST data set, and some
/// images.
fn world() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    small_mnist(&folder.path().join("path/to/mnist"));
    let photos = folder.path().join("path/to/photos");
    std::fs::create_dir_all(&photos).unwrap();
    let device = aigc_core::device::device("flex").unwrap();
    for (i, digit) in digits::load().0.into_iter().take(8).enumerate() {
        let picture = aigc_core::data::collate_images(vec![digit]).to_tensor(&device);
        save_image(
            &picture,
            ImageGrid {
                padding: 0,
                ..ImageGrid::new(1, 8)
            },
            &photos.join(format!("{i}.png")),
        )
        .unwrap();
    }
    folder
}

/// Runs an example with few steps.
fn run_example(name: &str, arguments: &[&str], world: &Path) {
    let mut command = Command::new(program(name));
    // my_images has no options: its training is short because its directory has only eight small
    // images.
    let short: &[&str] = match (name, arguments.contains(&"--steps")) {
        ("digits", false) => &["--steps", "6"],
        ("generate" | "reproduce_vae" | "reproduce_gan" | "reproduce_diffusion", false) => {
            &["--steps", "3"]
        }
        ("restore", false) => &["--steps", "2", "--images", "2"],
        ("effects", false) => &[
            "--steps",
            "3",
            "--classifier-steps",
            "3",
            "--sampling-steps",
            "2",
        ],
        ("reproduce_paint", _) if arguments.contains(&"evaluate") => {
            &["--prompts", "4", "--neighbours", "20"]
        }
        _ => &[],
    };
    let mut kept: Vec<&str> = arguments.to_vec();
    if let Some(at) = kept.iter().position(|a| *a == "--steps") {
        kept[at + 1] = "6";
    }
    if name == "digits" {
        kept.extend(["--save-steps", "3"]);
        let evaluated_with_samples = ["cvae", "vqvae", "gan", "cgan", "diffusion"];
        if arguments.iter().any(|a| evaluated_with_samples.contains(a)) {
            kept.extend(["--eval-samples", "10"]);
        }
        if arguments.contains(&"diffusion") {
            kept.extend(["--sampling-steps", "4"]);
        }
    }
    if name == "reproduce_diffusion" && arguments.contains(&"train") {
        kept.extend(["--eval-samples", "6"]);
    }
    for at in kept
        .clone()
        .iter()
        .enumerate()
        .filter(|(_, a)| **a == "--resume-at")
        .map(|(i, _)| i)
    {
        kept[at + 1] = "3";
    }
    let output = command
        .args(&kept)
        .args(short)
        .current_dir(world)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name} {arguments:?}: {text}");
}

/// A package of the workspace: its targets with their kinds, such as `test`, and whether cargo
/// takes it without `-p`.
struct Package {
    name: String,
    is_default: bool,
    targets: Vec<(String, String)>,
}

fn packages() -> &'static [Package] {
    static PACKAGES: OnceLock<Vec<Package>> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
            .current_dir(root());
        let metadata: Value = serde_json::from_str(&finish(command)).unwrap();
        let array = |value: &Value| value.as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_string();
        let defaults = array(&metadata["workspace_default_members"]);
        let packages = array(&metadata["packages"]);
        packages
            .iter()
            .map(|package| Package {
                name: text(&package["name"]),
                is_default: defaults.contains(&package["id"]),
                targets: array(&package["targets"])
                    .iter()
                    .map(|target| (text(&target["kind"][0]), text(&target["name"])))
                    .collect(),
            })
            .collect()
    })
}

/// Checks that a cargo command names packages of the workspace, and targets of these packages.
fn check_names(words: &[&str]) {
    let options: Vec<&str> = words.iter().copied().take_while(|w| *w != "--").collect();
    let named: Vec<&str> = options
        .windows(2)
        .filter(|pair| pair[0] == "-p")
        .map(|pair| pair[1])
        .collect();
    for name in &named {
        let there = packages().iter().any(|package| package.name == *name);
        assert!(
            there,
            "{words:?} names the package {name}, which is not there"
        );
    }
    for pair in options.windows(2) {
        let (Some(kind @ ("test" | "bench" | "example")), name) =
            (pair[0].strip_prefix("--"), pair[1])
        else {
            continue;
        };
        let there = packages()
            .iter()
            .filter(|package| match named.is_empty() {
                true => package.is_default,
                false => named.contains(&package.name.as_str()),
            })
            .flat_map(|package| &package.targets)
            .any(|target| target.0 == kind && target.1 == name);
        assert!(
            there,
            "{words:?} names the {kind} {name}, which is not there"
        );
    }
}

/// Checks that an example that is not run here has the options it is called with.
fn check_options(name: &str, arguments: &[&str]) {
    let mut command = Command::new(program(name));
    // The name of a subcommand, or a text.
    command.args(arguments.first().filter(|first| !first.starts_with('-')));
    command.arg("--help");
    let help = finish(command);
    let known: HashSet<&str> = help
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .collect();
    for option in arguments.iter().filter(|word| word.starts_with("--")) {
        assert!(known.contains(option), "{name} has no option {option}");
    }
}

/// The words of a command; what stands between double quotes is one.
fn split_words(line: &str) -> Vec<&str> {
    let pieces = line.split('"').enumerate();
    pieces
        .flat_map(|(i, piece)| match i % 2 {
            0 => piece.split_whitespace().collect(),
            _ => vec![piece],
        })
        .collect()
}

#[test]
fn documented_commands_run() {
    let world = world();
    // The same command on another page is not run again.
    let mut ran = HashSet::new();
    // In the order of a reader: first the README, then getting started, whose runs later pages
    // resume.
    let mut pages = pages();
    pages.sort_by_key(|(name, _)| match name.as_str() {
        "README.md" => 0,
        "getting-started.md" => 1,
        _ => 2,
    });
    for (page, text) in pages {
        for line in blocks(&text, "sh")
            .iter()
            .flat_map(|block| block.lines())
            .map(str::trim)
        {
            // `NAME=value` before a command sets its environment.
            let words: Vec<&str> = split_words(line)
                .into_iter()
                .skip_while(|w| w.contains('=') && !w.starts_with('-'))
                .collect();
            match words[..] {
                [] => {}
                [
                    "cargo",
                    "run",
                    "--release",
                    "--example",
                    name,
                    ref rest @ ..,
                ] => {
                    let arguments: Vec<&str> = rest
                        .iter()
                        .copied()
                        .skip_while(|w| *w != "--")
                        .skip(1)
                        .collect();
                    check_names(&words);
                    // Files of the reader, and servers, are not here.
                    let runs = !arguments
                        .iter()
                        .any(|a| a.starts_with("../") || *a == "--api");
                    if !runs {
                        check_options(name, &arguments);
                    } else if ran.insert(line.to_string()) {
                        run_example(name, &arguments, world.path());
                    }
                }
                // A package that is built only when it is named.
                ["cargo", "run", "--release", "-p", ..]
                | ["cargo", "test" | "bench", ..]
                | ["cargo", "+nightly", "test" | "miri", ..] => check_names(&words),
                ["cargo", "fuzz", "run", target, ..] => {
                    assert!(
                        root()
                            .join(format!("fuzz/fuzz_targets/{target}.rs"))
                            .is_file(),
                        "{line}"
                    );
                }
                ["cargo", "deny", "check", ..] => assert!(root().join("deny.toml").is_file()),
                ["python", script, ..] => assert!(root().join(script).is_file(), "{page}: {line}"),
                _ => panic!("{page}: no rule for the command `{line}`"),
            }
        }
    }
    assert!(ran.len() >= 6, "only these commands ran: {ran:?}");
}

#[test]
fn readme_shows_two_commands_and_my_images() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let commands: Vec<_> = blocks(&readme, "sh")
        .iter()
        .flat_map(|b| b.lines().map(String::from).collect::<Vec<_>>())
        .collect();
    assert_eq!(
        commands,
        ["cargo run --release --example digits", "cargo test"]
    );
    let program = std::fs::read_to_string(root().join("examples/my_images/main.rs")).unwrap();
    let (_, code) = program.split_once("\n\n").unwrap();
    assert_eq!(blocks(&readme, "rust,no_run"), [code]);
}

/// The anchors of a page: its headings by the rule of GitHub, in lower case, without punctuation,
/// and with hyphens for spaces.
fn anchors(page: &str) -> HashSet<String> {
    // Every other piece is code.
    let lines = page.split("```").step_by(2).flat_map(str::lines);
    let titles = lines.filter_map(|line| {
        let title = line.trim_start_matches('#');
        title.strip_prefix(' ').filter(|_| line.starts_with('#'))
    });
    titles
        .map(|title| {
            let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
            let kept: String = title.trim().to_lowercase().chars().filter(kept).collect();
            kept.replace(' ', "-")
        })
        .collect()
}

#[test]
fn anchors_are_those_of_headings() {
    let page = "# A\n## The `b_c`: d-e, (F)\n#g\ntext # h\n```sh\n# i\n```\n### J & k\n";
    let expected = ["a", "the-b_c-d-e-f", "j--k"].map(String::from);
    assert_eq!(anchors(page), HashSet::from(expected));
}

#[test]
fn links_between_pages_resolve() {
    let mut checked = 0;
    for (page, text) in pages() {
        let folder = if page == "README.md" {
            root()
        } else {
            root().join("docs")
        };
        for target in text
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap())
        {
            if target.starts_with("http") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => folder.join(&page),
                file => folder.join(file),
            };
            assert!(path.exists(), "{page}: {target}");
            if !anchor.is_empty() {
                checked += 1;
                let text = std::fs::read_to_string(path).unwrap();
                assert!(
                    anchors(&text).contains(anchor),
                    "{page}: {target} names no heading"
                );
            }
        }
    }
    assert!(checked >= 15, "{checked} links to headings");
}

/// All files below `dir`, without those in build directories.
fn files(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if !path.is_dir() {
                found.push(path);
            } else if path.file_name().is_some_and(|name| name != "target") {
                open.push(path);
            }
        }
    }
    found
}

/// The code between backticks in the prose of a page.
fn code_spans(page: &str) -> impl Iterator<Item = &str> {
    // Every other piece is code.
    let prose = page.split("```").step_by(2);
    prose
        .flat_map(|prose| prose.lines())
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Source files may be given by the end of their path, other files and directories from the root of
/// the repository.
#[test]
fn paths_between_backticks_exist() {
    const DIRS: [&str; 6] = [".ci", "benches", "crates", "examples", "fuzz", "tests"];
    let sources: Vec<PathBuf> = DIRS
        .iter()
        .flat_map(|dir| files(&root().join(dir)))
        .collect();
    let name = "CONTRIBUTING.md".to_string();
    let text = std::fs::read_to_string(root().join(&name)).unwrap();
    let mut checked = 0;
    for (page, text) in pages().into_iter().chain([(name, text)]) {
        for code in code_spans(&text) {
            let path = code.split("::").next().unwrap();
            let is_path = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
            // Files of the reader, and the placeholder of docs/coverage.md.
            let is_example = path.ends_with("/my.rs") || ["src/main.rs", "name.rs"].contains(&path);
            if is_example || !path.chars().all(is_path) {
                continue;
            }
            let exists = if [".rs", ".py", ".sh"].iter().any(|end| path.ends_with(end)) {
                sources.iter().any(|file| file.ends_with(path))
            } else if path
                .split_once('/')
                .is_some_and(|(dir, _)| dir == "docs" || DIRS.contains(&dir))
            {
                root().join(path).exists()
            } else {
                continue;
            };
            checked += 1;
            assert!(exists, "{page}: `{code}` does not exist");
        }
    }
    assert!(checked > 250, "{checked} paths are named");
}

/// The text of the file that docs/coverage.md cites in a section about `package`: a path from the
/// root or from the package's `src`, or the name of a target in `tests`.
fn cited_source(file: &str, package: &str) -> String {
    let places = match file.ends_with(".rs") {
        true => vec![file.to_string(), format!("crates/{package}/src/{file}")],
        false => {
            let target = file.split("::").next().unwrap();
            let of = |tests: &str| [format!("{tests}/{target}.rs"), format!("{tests}/{target}")];
            ["tests/tests", "tests/download/tests"].map(of).concat()
        }
    };
    let sources = places.iter().flat_map(|place| {
        let path = root().join(place);
        match path.is_file() {
            true => vec![path],
            false if path.is_dir() => files(&path),
            false => Vec::new(),
        }
    });
    sources
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

#[test]
fn coverage_names_existing_tests() {
    let page = std::fs::read_to_string(root().join("docs/coverage.md")).unwrap();
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let (mut package, mut cited) = ("", 0);
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            package = title.split(':').next().unwrap();
        }
        if !line.starts_with("| ") {
            continue;
        }
        let tests = line.trim_end_matches(" |").rsplit('|').next().unwrap();
        let mut source = String::new();
        // Every other piece between backticks is code.
        for code in tests.split('`').skip(1).step_by(2) {
            let (file, name) = match code.rsplit_once("::") {
                Some(parts) => parts,
                None if code.ends_with(".rs") => (code, "*"),
                None => continue,
            };
            // `::test` is in the file before it.
            if !file.is_empty() {
                source = cited_source(file, package);
            }
            assert!(!source.is_empty(), "{line}: there is no file of {code}");
            if name.chars().all(is_name) {
                cited += 1;
                let found = source.contains(&format!("fn {name}("));
                assert!(found, "{line}: {code} is not there");
            }
        }
    }
    assert!(cited > 600, "{cited} tests are cited");
}
