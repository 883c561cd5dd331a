//! A real S3 server on loopback: `s3s-fs`, which checks signatures and keeps each object as a file; with a gate before it that can cut.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const ACCESS_KEY: &str = "AKIAHOTSPOTTESTS";
const SECRET_KEY: &str = "not/a/secret/of/anybody";
const BUCKET: &str = "records";

/// How a prefix is named.
pub(crate) fn url(prefix: &str) -> String {
    format!("s3://{BUCKET}/{prefix}")
}

/// The server, which ends with it.
pub(crate) struct S3 {
    dir: tempfile::TempDir,
    port: u16,
    server: Arc<Mutex<Option<Child>>>,
}

impl S3 {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(BUCKET)).unwrap();
        let s3 = Self { dir, port: free_port(), server: Arc::default() };
        s3.run();
        s3
    }

    /// Starts the server, again if it was killed, and waits until it answers.
    pub(crate) fn run(&self) {
        let program = find("s3s-fs");
        let server = Command::new(&program)
            .args(["--host", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY])
            .arg(self.dir.path())
            .env("RUST_LOG", "error")
            .stdout(Stdio::null())
            .spawn();
        let server = server.unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask setup`", program.display()));
        *self.server.lock().unwrap() = Some(server);
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "s3s-fs does not answer");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The file in which the server keeps an object.
    pub(crate) fn object(&self, name: &str) -> PathBuf {
        self.dir.path().join(BUCKET).join(name)
    }

    /// Names of all objects below a prefix.
    pub(crate) fn objects(&self, prefix: &str) -> Vec<String> {
        let root = self.object(prefix);
        let mut names = Vec::new();
        let mut dirs = vec![root.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    names.push(path.strip_prefix(&root).unwrap().display().to_string());
                }
            }
        }
        names.sort();
        names
    }

    /// Removes all objects below a prefix. The server is started anew for that: it may still be at work on what a client that was
    /// killed had sent, and would put it after the others are gone.
    pub(crate) fn remove_all(&self, prefix: &str) {
        kill(&self.server);
        fs::remove_dir_all(self.object(prefix)).unwrap();
        self.run();
    }

    /// Gives a command the endpoint and the credentials.
    pub(crate) fn env<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        Self::env_at(command, self.port)
    }

    fn env_at(command: &mut Command, port: u16) -> &mut Command {
        command
            .env("AWS_ENDPOINT", format!("http://127.0.0.1:{port}"))
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_REGION", "us-east-1")
    }

    /// A gate before the server.
    pub(crate) fn gate(&self) -> Gate {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let gate = Gate { port: listener.local_addr().unwrap().port(), left: Arc::new(AtomicI64::new(i64::MAX)) };
        let (port, left, server) = (self.port, Arc::clone(&gate.left), Arc::clone(&self.server));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(upstream) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (left, server) = (Arc::clone(&left), Arc::clone(&server));
                let (from, to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                thread::spawn(move || pass_on(from, to, |bytes| spend(&left, bytes, &server)));
                thread::spawn(move || pass_on(upstream, client, |_| true));
            }
        });
        gate
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        kill(&self.server);
    }
}

/// Passes on what clients send, and kills the server once so many bytes went through.
pub(crate) struct Gate {
    port: u16,
    left: Arc<AtomicI64>,
}

impl Gate {
    pub(crate) fn kill_after(&self, bytes: i64) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    pub(crate) fn was_killed(&self) -> bool {
        self.left.load(Ordering::SeqCst) <= 0
    }

    pub(crate) fn env<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        S3::env_at(command, self.port)
    }
}

/// Counts bytes down; the one that reaches nothing kills the server.
fn spend(left: &AtomicI64, bytes: usize, server: &Mutex<Option<Child>>) -> bool {
    let before = left.fetch_sub(bytes as i64, Ordering::SeqCst);
    if before > 0 && before <= bytes as i64 {
        kill(server);
        return false;
    }
    if before <= 0 {
        // Only the kill is wanted; from then on the gate is open again.
        left.fetch_add(bytes as i64, Ordering::SeqCst);
    }
    true
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, may_pass: impl Fn(usize) -> bool) {
    let mut buffer = vec![0; 1 << 12];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || !may_pass(read) || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // Either may be closed already.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn kill(server: &Mutex<Option<Child>>) {
    if let Some(mut server) = server.lock().unwrap().take() {
        // SIGKILL; it may be dead already.
        let _ = server.kill();
        server.wait().unwrap();
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A program on `PATH` or where cargo installs.
fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo/bin"));
    let mut candidates = std::env::split_paths(&path).chain(home).map(|dir| dir.join(program));
    candidates.find(|candidate| candidate.is_file()).unwrap_or_else(|| program.into())
}
