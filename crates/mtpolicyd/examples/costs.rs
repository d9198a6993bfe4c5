//! Measures what cannot be seen from one run: what the numbers for monitoring cost each request, and how
//! long `mtpolicyd check` takes for each file of a folder.
//!
//! `costs metrics PROGRAM [ROUNDS [REQUESTS]]`: two daemons, one with `<Metrics>` and one without, are asked
//! in turn, so that whatever else the machine does hits both. Printed are the processor time of each request
//! and the difference, and what one counter costs that is always counted.
//!
//! `costs check PROGRAM FOLDER [MILLISECONDS]`: every `*.conf` below the folder, five times each; the exit
//! status is 1 if the fastest of them took longer than the limit (50).
//!
//! Knows: the command line, `/proc`. Must not know: the daemon's code, but for its counters.

#![allow(clippy::print_stdout, reason = "it is a program that prints figures")]

use mtpolicyd::metrics::{Cells, Histogram};
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

type Failure = Box<dyn Error>;

/// Clock ticks a second in `/proc`: a constant of Linux for programs.
const TICKS: f64 = 100.0;

/// A chain of twenty plugins, as many have.
fn configuration(port: u16, metrics: &str) -> String {
    let plugin = |n: u32| match n % 2 {
        0 => format!("<Plugin set{n}>\nmodule = SetField\nkey = k{n}\nvalue = 1\n</Plugin>\n"),
        _ => format!(
            "<Plugin if{n}>\nmodule = Condition\nkey = sender\nre_match = \"^bounce{n}[-+.@]\"\nscore = 1\n\
             </Plugin>\n"
        ),
    };
    let plugins: String = (0..20).map(plugin).collect();
    let score = "<Plugin act>\nmodule = ScoreAction\nthreshold = 15\naction = reject no\n</Plugin>\n";
    format!(
        "port = \"127.0.0.1:{port}\"\nlog_level = 0\n{metrics}<Journal off>\n</Journal>\n\
         <VirtualHost {port}>\nname = in\n{plugins}{score}</VirtualHost>\n"
    )
}

/// A daemon that is ended when this is dropped.
struct Daemon {
    child: Child,
    stream: TcpStream,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Daemon {
    fn start(program: &Path, folder: &Path, metrics: bool) -> Result<Daemon, Failure> {
        let port = free_port()?;
        let block = match metrics {
            true => format!("<Metrics>\nlisten = \"127.0.0.1:{}\"\n</Metrics>\n", free_port()?),
            false => String::new(),
        };
        let path = folder.join(format!("{metrics}.conf"));
        fs::write(&path, configuration(port, &block))?;
        let mut command = Command::new(program);
        command.args(["-f", "-c"]).arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        for _ in 0..100 {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                stream.set_nodelay(true)?;
                return Ok(Daemon { child, stream });
            }
            if let Some(status) = child.try_wait()? {
                return Err(format!("the daemon has ended: {status}").into());
            }
            sleep(Duration::from_millis(100));
        }
        Err("the daemon does not listen".into())
    }

    fn ask(&mut self, requests: u64) -> Result<(), Failure> {
        let mut answer = [0; 512];
        for number in 0..requests {
            let attributes = "request=smtpd_access_policy\nclient_address=192.0.2.1\nsender=a@b.test";
            let request = format!("{attributes}\ninstance={number}\n\n");
            self.stream.write_all(request.as_bytes())?;
            let mut length = 0;
            while !answer[..length].ends_with(b"\n\n") {
                match self.stream.read(&mut answer[length..])? {
                    0 => return Err("the daemon has closed the connection".into()),
                    more => length += more,
                }
            }
        }
        Ok(())
    }

    /// The processor time that it has taken so far, in seconds.
    fn seconds(&self) -> Result<f64, Failure> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields = text.rsplit_once(") ").ok_or("this is not proc(5)")?.1;
        let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
        Ok(ticks.iter().sum::<f64>() / TICKS)
    }
}

#[allow(clippy::cast_precision_loss, reason = "a mean")]
fn metrics(program: &Path, rounds: u64, requests: u64) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let mut without = Daemon::start(program, folder.path(), false)?;
    let mut with = Daemon::start(program, folder.path(), true)?;
    // What is done once is not what a request costs.
    without.ask(requests / 10)?;
    with.ask(requests / 10)?;
    let begun = (without.seconds()?, with.seconds()?);
    for round in 0..rounds {
        // Whoever is asked first may find a colder machine.
        let daemons = if round % 2 == 0 { [&mut without, &mut with] } else { [&mut with, &mut without] };
        for daemon in daemons {
            daemon.ask(requests)?;
        }
    }
    let micros = |seconds: f64| seconds * 1e6 / (rounds * requests) as f64;
    let (without, with) = (micros(without.seconds()? - begun.0), micros(with.seconds()? - begun.1));
    println!("requests of each daemon     {}", rounds * requests);
    println!("without <Metrics>           {without:8.2} us of processor time per request");
    println!("with <Metrics>              {with:8.2} us");
    println!(
        "difference                  {:8.2} us, {:+.1} %",
        with - without,
        (with / without - 1.0) * 100.0
    );
    counters();
    Ok(())
}

/// What is counted with and without `<Metrics>`: the outcome and the time of each request.
fn counters() {
    const ADDS: u32 = 10_000_000;
    let (cells, histogram) = (Cells::<9>::default(), Histogram::default());
    let start = Instant::now();
    for number in 0..ADDS {
        black_box(&cells).add(number as usize % 9, 1);
        black_box(&histogram).observe(u64::from(number % 5_000), None);
    }
    let each = start.elapsed().as_secs_f64() * 1e9 / f64::from(ADDS);
    println!("always: a counter and a time {each:7.1} ns per request");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "conf") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

/// Whether each file was looked at in time. The fastest of several runs is what the work takes; the others
/// had to wait for something.
fn check(program: &Path, folder: &Path, limit: Duration) -> Result<bool, Failure> {
    const RUNS: usize = 5;
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    let mut slow = 0;
    for file in &files {
        let mut took = Vec::new();
        for _ in 0..RUNS {
            let mut command = Command::new(program);
            command.arg("check").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let start = Instant::now();
            command.status()?;
            took.push(start.elapsed());
        }
        took.sort();
        let (fastest, middle) = (took[0], took[RUNS / 2]);
        let mark = if fastest > limit { "  SLOW" } else { "" };
        slow += usize::from(fastest > limit);
        println!(
            "{:8.1} ms {:8.1} ms  {}{mark}",
            fastest.as_secs_f64() * 1e3,
            middle.as_secs_f64() * 1e3,
            file.display()
        );
    }
    println!(
        "{} files, {slow} slower than {} ms (fastest and middle of {RUNS})",
        files.len(),
        limit.as_millis()
    );
    Ok(slow == 0)
}

fn main() -> Result<ExitCode, Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize, usual: u64| arguments.get(place).map_or(Ok(usual), |text| text.parse());
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["metrics", program, ..] => {
            metrics(Path::new(program), number(2, 20)?, number(3, 20_000)?)?;
            Ok(ExitCode::SUCCESS)
        }
        ["check", program, folder, ..] => {
            let limit = Duration::from_millis(number(3, 50)?);
            let is_quick = check(Path::new(program), Path::new(folder), limit)?;
            Ok(if is_quick { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        _ => {
            Err("costs metrics PROGRAM [ROUNDS [REQUESTS]] | costs check PROGRAM FOLDER [MILLISECONDS]"
                .into())
        }
    }
}
