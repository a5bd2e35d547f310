//! execve(2) and its arrays of strings, prepared before the new process exists.
//!
//! The strings do not move, so the new process only passes the arrays on. Two entries are known only to the new
//! process: the file that a shell is to run, and the value of `DETACH_JOB`. Room for both is reserved beforehand.

use std::ffi::{CStr, CString, OsString, c_char};
use std::fmt::Write;
use std::iter;
use std::os::unix::ffi::OsStringExt;
use std::ptr::null;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use crate::sys::fixed::FixedText;

/// The variable that marks the processes of a job: `PID-STARTTIME` of its first one.
pub const JOB_VARIABLE: &str = "DETACH_JOB";
/// `DETACH_JOB=`, a PID, a dash, a number of 64 bits, and a zero.
const LONGEST_JOB_VARIABLE: usize = 48;

/// An array of strings as execve(2) takes it.
#[derive(Clone, Copy)]
pub struct StringArray<'a>(&'a [AtomicPtr<c_char>]);

impl StringArray<'_> {
    fn as_ptr(self) -> *const *const c_char {
        // An AtomicPtr has the representation of the pointer.
        self.0.as_ptr().cast()
    }
}

/// The arguments of a command, which a shell can be given as well if the command is a script.
pub struct Arguments {
    /// Those of the command, its name first.
    strings: Vec<CString>,
    /// `SHELL NAME ARGUMENT...` and a null pointer. The new process may replace NAME with the file that the shell is to
    /// run, so the entries are atomic.
    pointers: Vec<AtomicPtr<c_char>>,
}

impl Arguments {
    pub fn new(shell: &'static CStr, strings: Vec<CString>) -> Self {
        let pointers = iter::once(shell.as_ptr()).chain(strings.iter().map(|string| string.as_ptr())).chain([null()]);
        let pointers = pointers.map(|pointer| AtomicPtr::new(pointer.cast_mut())).collect();
        Self { strings, pointers }
    }

    /// Those of the command.
    pub fn of_command(&self) -> StringArray<'_> {
        let name = self.strings.first().map_or(c"", CString::as_c_str);
        StringArray(self.with_name(name).get(1..).unwrap_or_default())
    }

    /// Those of a shell that runs `file`.
    pub fn of_shell<'a>(&'a self, file: &'a CStr) -> StringArray<'a> {
        StringArray(self.with_name(file))
    }

    fn with_name(&self, name: &CStr) -> &[AtomicPtr<c_char>] {
        if let Some(place) = self.pointers.get(1) {
            place.store(name.as_ptr().cast_mut(), Ordering::Relaxed);
        }
        &self.pointers
    }
}

/// The environment of the command: that of this process, and [`JOB_VARIABLE`].
pub struct Environment {
    /// To the strings of this process, to `job`, and a null pointer.
    pointers: Vec<AtomicPtr<c_char>>,
    /// The last string.
    job: Box<[AtomicU8; LONGEST_JOB_VARIABLE]>,
}

impl Environment {
    /// Takes over what the caller has passed, as it is: malformed entries, too.
    pub fn of_this_process() -> Self {
        unsafe extern "C" {
            /// environ(7)
            static environ: *const *const c_char;
        }
        let job = Box::new([const { AtomicU8::new(0) }; LONGEST_JOB_VARIABLE]);
        let mut pointers = Vec::new();
        // SAFETY: the C library has set it before `main`, and nothing in this program changes the environment.
        let mut next = unsafe { environ };
        while !next.is_null() {
            // SAFETY: the array ends with a null pointer, which has not been reached yet.
            let variable = unsafe { next.read() };
            if variable.is_null() {
                break;
            }
            // SAFETY: each entry is a string that ends with a zero, and stays where it is.
            let text = unsafe { CStr::from_ptr(variable) }.to_bytes();
            if text.strip_prefix(JOB_VARIABLE.as_bytes()).is_none_or(|rest| rest.first() != Some(&b'=')) {
                pointers.push(AtomicPtr::new(variable.cast_mut()));
            }
            // SAFETY: this entry is not the last one.
            next = unsafe { next.add(1) };
        }
        pointers.push(AtomicPtr::new(job.as_ptr().cast_mut().cast()));
        pointers.push(AtomicPtr::default());
        Self { pointers, job }
    }

    /// Sets [`JOB_VARIABLE`].
    pub fn name_job(&self, pid: Pid, start_time: u64) {
        let mut text = FixedText::<LONGEST_JOB_VARIABLE>::new();
        // It has room for the largest numbers.
        let _ = write!(text, "{JOB_VARIABLE}={pid}-{start_time}");
        for (place, byte) in self.job.iter().zip(text.as_bytes().iter().chain(&[0])) {
            place.store(*byte, Ordering::Relaxed);
        }
    }

    pub fn array(&self) -> StringArray<'_> {
        StringArray(&self.pointers)
    }
}

/// Becomes the program `file`: execve(2). Returns only when that fails.
pub fn execute(file: &CStr, arguments: StringArray, environment: StringArray) -> Errno {
    // SAFETY: both arrays end with a null pointer, and point to strings that stay where they are.
    unsafe { libc::execve(file.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    Errno::last()
}

/// Becomes the program `file`, with the environment of this process: execv(3). Takes at most 15 arguments, and
/// allocates nothing. Returns only when that fails.
pub fn execute_here(file: &CStr, arguments: &[&CStr]) -> Errno {
    let mut pointers = [null::<c_char>(); 16];
    if arguments.len() >= pointers.len() {
        return Errno::E2BIG;
    }
    for (pointer, argument) in pointers.iter_mut().zip(arguments) {
        *pointer = argument.as_ptr();
    }
    // SAFETY: the array ends with a null pointer, because it is longer than `arguments`, whose strings are valid.
    unsafe { libc::execv(file.as_ptr(), pointers.as_ptr()) };
    Errno::last()
}

/// `word` for a system call. No argument or path on Linux contains a zero byte, so the error is never seen.
pub fn to_c_string(word: OsString) -> CString {
    CString::new(word.into_vec()).unwrap_or_default()
}
