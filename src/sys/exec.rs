//! execve(2) and its arrays of strings, prepared before there is a new process.
//!
//! What the arrays point to stays where it is, so that the new process only has to pass them on. Two entries are known to the
//! new process alone: which file a shell is to run, and the value of `DETACH_JOB`. Both have their place already.

use std::ffi::{CStr, CString, OsString, c_char};
use std::fmt::Write;
use std::os::unix::ffi::OsStringExt;
use std::ptr::{null, null_mut};
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
pub struct StringArray {
    strings: Vec<CString>,
    /// To `strings`, or to strings of the process, and a null pointer. Atomic, because a new process may change one entry.
    pointers: Vec<AtomicPtr<c_char>>,
}

impl StringArray {
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr().cast_mut()).chain([null_mut()]);
        let pointers = pointers.map(AtomicPtr::new).collect();
        Self { strings, pointers }
    }

    pub fn strings(&self) -> &[CString] {
        &self.strings
    }

    fn as_ptr(&self) -> *const *const c_char {
        // An AtomicPtr has the representation of the pointer.
        self.pointers.as_ptr().cast()
    }
}

/// The arguments of a shell that is to run one of several files: `sh FILE ARGUMENT...`.
pub struct ShellArguments {
    array: StringArray,
    files: Vec<CString>,
}

impl ShellArguments {
    /// `arguments` are those of the command, its name included, which the file replaces.
    pub fn new(shell: &CStr, files: Vec<CString>, arguments: &[CString]) -> Self {
        let place = CString::default();
        let strings = [shell.to_owned(), place].into_iter().chain(arguments.iter().skip(1).cloned());
        Self { array: StringArray::new(strings.collect()), files }
    }

    /// Names the file of this number.
    pub fn name_file(&self, number: usize) -> &StringArray {
        if let (Some(place), Some(file)) = (self.array.pointers.get(1), self.files.get(number)) {
            place.store(file.as_ptr().cast_mut(), Ordering::Relaxed);
        }
        &self.array
    }
}

/// The environment of the command: that of this process, and [`JOB_VARIABLE`].
pub struct Environment {
    array: StringArray,
    /// The last entry.
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
        Self { array: StringArray { strings: Vec::new(), pointers }, job }
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

    pub fn array(&self) -> &StringArray {
        &self.array
    }
}

/// Becomes the program `file`: execve(2). Returns only when that fails.
pub fn execute(file: &CStr, arguments: &StringArray, environment: &StringArray) -> Errno {
    // SAFETY: both arrays end with a null pointer, and point to strings that stay where they are.
    unsafe { libc::execve(file.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    Errno::last()
}

/// Becomes the program `file`, with the environment of this process: execv(3). Takes at most 15 arguments, and allocates
/// nothing. Returns only when that fails.
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

/// `word` for a system call. None of Linux holds a zero byte, so the error is never seen.
pub fn to_c_string(word: OsString) -> CString {
    CString::new(word.into_vec()).unwrap_or_default()
}
