//! What detach knows of its jobs, asked for the way scripts ask: by `detach --list --all --json`.
//!
//! Nothing here depends on how records are stored; `storage` does.

use std::fs;

use serde_json::Value;

use super::process::Process;
use super::sandbox::Sandbox;
use super::wait::{await_result, eventually};

/// The beginning of the command line of a tracking process.
pub const TRACKER: &str = "detach --tracking";

impl Sandbox {
    /// The records of all jobs, the oldest first, as `--list --json` prints them.
    #[track_caller]
    pub fn records(&self) -> Vec<Value> {
        let list = self.detach(["--list", "--all", "--json"]).succeeds();
        list.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The record of the only job.
    #[track_caller]
    pub fn only_record(&self) -> Value {
        let mut records = self.records();
        assert_eq!(records.len(), 1, "{records:?}");
        records.remove(0)
    }

    #[track_caller]
    pub fn record_of(&self, job: &Process) -> Value {
        let mut records = self.records().into_iter();
        records.find(|record| record["pid"] == job.pid.as_raw()).unwrap()
    }

    /// The end of `job`, as soon as it is recorded.
    #[track_caller]
    pub fn end_of(&self, job: &Process) -> Value {
        await_result(|| {
            let record = self.record_of(job);
            if record["end"].is_null() { Err(record.to_string()) } else { Ok(record["end"].clone()) }
        })
    }

    /// The process that tracks `job`, which runs.
    #[track_caller]
    pub fn tracker_of(&self, job: &Process) -> Process {
        let tracker = self.tracker_of_ended(job);
        // It may still be in its exec.
        tracker.wait_for_exec(TRACKER);
        tracker
    }

    /// The process that tracks or has tracked `job`, which may have ended.
    #[track_caller]
    pub fn tracker_of_ended(&self, job: &Process) -> Process {
        let pid = self.record_of(job)["tracker"]["pid"].as_i64().unwrap();
        Process::new(pid.try_into().unwrap())
    }

    /// What `detach --list` prints where stdout is no terminal: the fields of each line.
    #[track_caller]
    pub fn list(&self, options: &[&str]) -> Vec<Vec<String>> {
        let list = self.detach(["--list"].iter().chain(options)).succeeds();
        list.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    /// The state of `job` in `detach --list`.
    #[track_caller]
    pub fn state_of(&self, job: &Process) -> String {
        let mut lines = self.list(&[]).into_iter();
        lines.find(|line| line[0] == job.pid.to_string()).unwrap().remove(2)
    }

    /// Starts the job "chain", whose first process has ended, and of which each process makes the next one and ends after
    /// 2 ms, until the file "on" is removed. `each` is what each of them does in Perl, `last` what the last one does.
    #[track_caller]
    pub fn chain(&self, each: &str, last: &str) -> Process {
        self.write("on", "");
        let link = format!("{each} exit if fork; select undef, undef, undef, 0.002;");
        self.write("chain.pl", format!("while (-e 'on') {{ {link} }} {last}"));
        // A tracking process waits for all of them; else they would fill the process table.
        // Zombies make a look at /proc last longer than a process of the chain.
        let crowd = "perl -e 'for (1..2000) { exit unless fork } open F, q(>), q(crowd); close F; sleep 600' &";
        let chain = "until test -e crowd; do sleep 0.01; done; detach -P -o /dev/null -N chain perl chain.pl > pid";
        let nursery = format!("{crowd} {chain}; while test -e on; do sleep 0.1; done; kill $!");
        self.detach(["-t", "-o", "/dev/null", "-N", "nursery", "sh", "-c", &nursery]).succeeds_silently();
        let job = await_result(|| {
            let pid = fs::read_to_string(self.work("pid")).map_err(|error| error.to_string())?;
            pid.trim().parse().map(Process::new).map_err(|_| pid)
        });
        eventually(|| job.is_dead());
        job
    }
}
