//! The list of hosts: each name once, known, and somebody answers there.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use copper_launcher::Hosts;
use copper_launcher::job::host_name;

use super::Finding;

/// How long a host may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// How long its name may take to be looked up: name servers repeat themselves after 5 s.
const LOOK_UP: Duration = Duration::from_secs(6);

/// Hosts that are asked at the same time.
const AT_ONCE: usize = 64;

/// Hosts that are named; of the others it is said how many there are.
const NAMED_MAX: usize = 20;

/// The most that is read of a list: see `Peers::from_hosts_file`.
const BYTES_MAX: u64 = 16 << 20;

/// What a host said.
#[derive(Debug)]
enum Answer {
    Connected(SocketAddr),
    /// The host is there, and nobody listens.
    Refused(SocketAddr),
    Unknown(String),
    Silent(String),
}

/// How many hosts there are, and what is to be said of them.
pub(super) fn examine(file: &Path, port: u16) -> (usize, Vec<Finding>) {
    const CHECK: &str = "list of hosts";
    let shown = file.display();
    let hosts = match read(file) {
        Ok(hosts) if hosts.is_empty() => {
            let finding =
                Finding::fail(CHECK, format!("{shown} is empty"), "write one host a line");
            return (1, vec![finding]);
        }
        Ok(hosts) => hosts,
        Err(error) => {
            let finding = Finding::fail(CHECK, format!("{shown}: {error}"), "give another --hosts");
            return (1, vec![finding]);
        }
    };
    let mut findings = Vec::new();
    let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (host, line) in &hosts {
        places.entry(host).or_default().push(*line);
    }
    let twice: Vec<String> = places
        .iter()
        .filter(|(_, lines)| lines.len() > 1)
        .map(|(host, lines)| format!("{host} (lines {})", join(lines.iter())))
        .collect();
    if !twice.is_empty() {
        let found = format!("{shown} names hosts more than once: {}", named(&twice));
        findings.push(Finding::fail(CHECK, found, "name each host once: it has one rank"));
    } else if let Err(error) = Hosts::from_file(file) {
        // What a launch would say.
        findings.push(Finding::fail(CHECK, error.to_string(), "write one host a line"));
    }
    let names: Vec<String> = places.keys().map(|&host| host.to_owned()).collect();
    let answers = ask_all(&names, port);
    findings.extend(own(&answers));
    findings.extend(judge(&names, &answers, port));
    (names.len(), findings)
}

/// Hosts with the lines that they stand in; comments and empty lines do not count.
fn read(file: &Path) -> io::Result<Vec<(String, usize)>> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(file)?.take(BYTES_MAX).read_to_string(&mut text)?;
    let host = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
    let lines = text.lines().zip(1..).map(|(line, number)| (host(line), number));
    Ok(lines.filter(|(host, _)| !host.is_empty()).collect())
}

/// Asks all of them, several at a time; those that are not heard of within the bound are silent.
fn ask_all(names: &[String], port: u16) -> BTreeMap<String, Answer> {
    let names: Arc<[String]> = names.into();
    let next = Arc::new(AtomicUsize::new(0));
    let (sender, receiver) = mpsc::channel();
    for _ in 0..names.len().min(AT_ONCE) {
        let (names, next, sender) = (Arc::clone(&names), Arc::clone(&next), sender.clone());
        // A thread that cannot be had leaves its hosts to the others.
        let _ = std::thread::Builder::new().name("hosts".to_owned()).spawn(move || {
            // Relaxed: only that no two take the same host.
            while let Some(host) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                if sender.send((host.clone(), ask(host, port))).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let rounds = u32::try_from(names.len().div_ceil(AT_ONCE)).unwrap_or(u32::MAX);
    let deadline = Instant::now() + LOOK_UP + ANSWER * rounds;
    let mut answers = BTreeMap::new();
    while let Ok((host, answer)) =
        receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        answers.insert(host, answer);
    }
    for host in names.iter() {
        let silent = || Answer::Silent("its name was not looked up in time".to_owned());
        answers.entry(host.clone()).or_insert_with(silent);
    }
    answers
}

fn ask(host: &str, port: u16) -> Answer {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = match (host, port).to_socket_addrs().map(|mut found| found.next()) {
        Ok(Some(address)) => address,
        Ok(None) => return Answer::Unknown("no address".to_owned()),
        Err(error) => return Answer::Unknown(error.to_string()),
    };
    match TcpStream::connect_timeout(&address, ANSWER) {
        Ok(_) => Answer::Connected(address),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Answer::Refused(address),
        Err(error) => Answer::Silent(error.to_string()),
    }
}

/// Whether this machine is one of them: by name, or by an address that only it can listen on.
fn own(answers: &BTreeMap<String, Answer>) -> Option<Finding> {
    let own = host_name();
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let here = |(host, answer): (&String, &Answer)| match answer {
        _ if host.parse::<IpAddr>().is_err() && short(host) == short(&own) => true,
        Answer::Connected(address) | Answer::Refused(address) => {
            TcpListener::bind((address.ip(), 0)).is_ok()
        }
        Answer::Unknown(_) | Answer::Silent(_) => false,
    };
    (!answers.iter().any(here)).then(|| {
        let found = format!("this machine ({own}) is not one of the hosts");
        Finding::warning("own host", found, "right where a login node launches, else add it")
    })
}

fn judge(names: &[String], answers: &BTreeMap<String, Answer>, port: u16) -> Vec<Finding> {
    let (mut unknown, mut silent, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for (host, answer) in answers {
        match answer {
            Answer::Unknown(error) => unknown.push(format!("{host} ({error})")),
            Answer::Silent(error) => silent.push(format!("{host} ({error})")),
            Answer::Refused(_) => refused.push(host.clone()),
            Answer::Connected(_) => {}
        }
    }
    let mut findings = Vec::new();
    if !unknown.is_empty() {
        let found = format!("{} have no address: {}", unknown.len(), named(&unknown));
        findings.push(Finding::fail("hosts", found, "correct the names, or /etc/hosts"));
    }
    if !silent.is_empty() {
        let found = format!("{} do not answer: {}", silent.len(), named(&silent));
        findings.push(Finding::fail("hosts", found, "leave them out, or have them started"));
    }
    if !refused.is_empty() {
        let found =
            format!("{} are up, with nobody at port {port}: {}", refused.len(), named(&refused));
        let advice = "--launcher ssh and clush need sshd there; mpiexec and srun do not";
        findings.push(Finding::warning("hosts", found, advice));
    }
    let connected = names.len() - unknown.len() - silent.len() - refused.len();
    if connected > 0 {
        findings.push(Finding::ok("hosts", format!("{connected} of {} answer", names.len())));
    }
    findings
}

fn named(all: &[String]) -> String {
    let first = join(all.iter().take(NAMED_MAX));
    match all.len().checked_sub(NAMED_MAX) {
        None | Some(0) => first,
        Some(more) => format!("{first} and {more} more"),
    }
}

fn join<T: ToString>(all: impl Iterator<Item = T>) -> String {
    all.map(|one| one.to_string()).collect::<Vec<_>>().join(", ")
}
