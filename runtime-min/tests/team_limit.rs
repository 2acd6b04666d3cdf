//! Where the system gives no more threads, a team is smaller, and what it computes is the same.

#![cfg(unix)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::*;
use runtime_min::Options;
use runtime_min::team::Team;

/// Set for the limited process: processes and threads that its user may have.
const LIMITED: &str = "TEAM_LIMIT";

/// A user without rights, and one that nobody else runs anything as.
const NOBODY: u32 = 64_123;

/// An answer with eight threads asked for, and the threads that were given.
fn answer() -> (Vec<u32>, usize) {
    let model = model();
    let options = Options { max_new_tokens: 12, threads: Some(8), ..Options::default() };
    let mut chat = model.session(options).expect("a session");
    let threads = chat.threads();
    let mut answer = chat.ask(&[], "how many?").expect("fits");
    answer.text().expect("runs");
    (answer.token_ids().to_vec(), threads)
}

/// Runs alone in the limited process; says nothing of use elsewhere.
#[test]
fn limited() {
    let Ok(limit) = std::env::var(LIMITED) else { return };
    let limit: usize = limit.parse().expect("a number");
    let mut team = Team::new(8).expect("a smaller team");
    // The test harness may have a thread of its own.
    let most = limit.min(7);
    assert!((limit - limit / 2..=most).contains(&team.count()), "{} of {limit}", team.count());
    let shares = std::sync::Mutex::new(Vec::new());
    for _ in 0..100 {
        let work = |member: &runtime_min::team::Member<'_>| {
            member.barrier();
            shares.lock().expect("no panic").push(member.part(1000).len());
        };
        team.run(&work).expect("runs");
    }
    assert_eq!(shares.into_inner().expect("no panic").iter().sum::<usize>(), 100_000);
    drop(team);
    let (tokens, threads) = answer();
    assert!((limit - limit / 2..=most).contains(&threads), "{threads} of {limit}");
    println!("limited: {tokens:?}");
}

#[test]
fn fewer_threads_than_asked_for_give_the_same_answer() {
    let (tokens, threads) = answer();
    assert_eq!(threads, 8);
    // A copy in a place that others can reach.
    let binary = std::env::temp_dir().join(format!("team-limit-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().expect("this test"), &binary).expect("copied");
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).expect("changed");
    // The limit counts the processes of a user, and does not concern root.
    let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    for given in [1, 2, 6] {
        if !root {
            println!("skipped: `ulimit -u`, which needs a user without other processes, and only root can become one");
            break;
        }
        let mut command = Command::new("sh");
        // dash has another letter for it.
        let script = format!("ulimit -u {given} 2>/dev/null || ulimit -p {given} || exit 9; exec \"$@\"");
        command.args(["-c", &script, "sh"]).arg(&binary);
        command.args(["--exact", "limited", "--test-threads", "1", "--nocapture"]);
        command.env(LIMITED, given.to_string()).current_dir("/").uid(NOBODY).gid(NOBODY);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
        let begin = Instant::now();
        while child.try_wait().expect("a child").is_none() {
            if begin.elapsed() > Duration::from_secs(60) {
                child.kill().expect("killed");
                panic!("{given} threads: no end after a minute");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let done = child.wait_with_output().expect("ended");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{given} threads: {said}{}", String::from_utf8_lossy(&done.stderr));
        assert!(said.contains(&format!("limited: {tokens:?}")), "{given} threads: {said}");
    }
    std::fs::remove_file(&binary).expect("removed");
}
