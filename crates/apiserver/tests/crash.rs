//! kill -9 under load: acknowledged writes survive, and revisions continue.
//!
//! The server runs in a process of its own, which is this program again (hence no test harness).

#![expect(clippy::unwrap_used, reason = "a test, although clippy knows tests by their harness")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use wasmbed_apiserver::kinds::Kinds;
use wasmbed_apiserver::resource::{Author, FieldValidation};
use wasmbed_apiserver::store::{Disk, History, Operation, Read, Store, Write};

const ROUNDS: usize = 5;
const WRITERS: usize = 16;
/// Acknowledged writes before each kill.
const WRITES: u64 = 300;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("writer") => writer(Path::new(&arguments[2]), &arguments[3]),
        // cargo and its tools request a list of tests.
        Some("--list") => println!("nothing_acknowledged_is_lost: test"),
        _ => {
            nothing_acknowledged_is_lost();
            println!("test nothing_acknowledged_is_lost ... ok");
        }
    }
}

/// Writes Leases for ever and prints the name and revision of each that was acknowledged.
#[tokio::main]
async fn writer(folder: &Path, round: &str) {
    let kinds = Arc::new(Kinds::new(&[]).unwrap());
    let history = History { events: 16, bytes: 1 << 20 };
    let (store, _ended) =
        Store::start(Arc::clone(&kinds), Disk::open(folder, None).unwrap(), history, |_| {}).unwrap();
    let namespaces = kinds.namespaces();
    // Later rounds find it.
    let _ = store.write(create(namespaces, None, "default")).await;
    let leases = kinds.get("coordination.k8s.io", "v1", "leases").unwrap();
    let next = AtomicU64::new(0);
    let run = || async {
        loop {
            let name = format!("l-{round}-{}", next.fetch_add(1, Ordering::Relaxed));
            let applied = store.write(create(leases, Some("default"), &name)).await.unwrap();
            println!("{name} {}", applied.event.unwrap().revision());
        }
    };
    let _: Vec<()> = futures::future::join_all((0..WRITERS).map(|_| run())).await;
}

fn create(kind: &Arc<wasmbed_apiserver::kinds::Kind>, namespace: Option<&str>, name: &str) -> Write {
    let object =
        serde_json::json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": name}});
    Write {
        kind: Arc::clone(kind),
        namespace: namespace.map(str::to_owned),
        name: String::new(),
        operation: Operation::Create { object, duplicates: Vec::new() },
        manager: "test".into(),
        author: Arc::new(Author::default()),
        dry_run: false,
        validation: FieldValidation::Strict,
        constraints: Vec::new(),
    }
}

fn nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(String, u64)> = Vec::new();
    for round in 0..ROUNDS {
        let before = acknowledged.iter().map(|(_, revision)| *revision).max().unwrap_or(0);
        let seen = kill_in_the_middle(folder.path(), round);
        assert!(seen.iter().all(|(_, revision)| *revision > before), "a revision was used twice");
        acknowledged.extend(seen);
        check(folder.path(), &acknowledged);
    }
    println!("{} writes acknowledged in {ROUNDS} lives, none lost", acknowledged.len());
}

/// The writes that one life of the writer acknowledged.
fn kill_in_the_middle(folder: &Path, round: usize) -> Vec<(String, u64)> {
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .arg("writer")
        .arg(folder)
        .arg(round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut seen: Vec<String> = lines.by_ref().take(usize::try_from(WRITES).unwrap()).collect();
    // SIGKILL: no destructor runs, no buffer is flushed.
    child.kill().unwrap();
    seen.extend(lines);
    child.wait().unwrap();
    assert!(seen.len() as u64 >= WRITES, "the writer ended early");
    let parse = |line: String| {
        let (name, revision) = line.split_once(' ')?;
        Some((name.to_owned(), revision.parse().ok()?))
    };
    // The last line may be cut.
    seen.into_iter().filter_map(parse).collect()
}

fn check(folder: &Path, acknowledged: &[(String, u64)]) {
    let disk = Disk::open(folder, None).unwrap();
    let snapshot = disk.snapshot().unwrap();
    for (name, revision) in acknowledged {
        let stored = snapshot.get(&format!("coordination.k8s.io/leases/default/{name}")).unwrap();
        let stored: Value =
            serde_json::from_slice(&stored.unwrap_or_else(|| panic!("{name} is lost"))).unwrap();
        assert_eq!(stored["metadata"]["resourceVersion"], revision.to_string());
    }
    let newest = acknowledged.iter().map(|(_, revision)| *revision).max().unwrap();
    assert!(snapshot.revision() >= newest, "the revision went back to {}", snapshot.revision());
}
