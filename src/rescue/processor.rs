//! Everything of `rescue` that depends on the processor: the registers of a thread, and the instruction that makes a
//! system call.
//!
//! Another processor is added here, as a module beside that of x86-64 with the same names in it.

pub use known::{INSTRUCTION, IS_SUPPORTED, Registers, WORDS};

#[cfg(target_arch = "x86_64")]
mod known {
    pub const IS_SUPPORTED: bool = true;
    pub const WORDS: usize = 27;
    /// `syscall`
    pub const INSTRUCTION: &[u8] = &[0x0f, 0x05];

    // Places in the kernel's struct user_regs_struct.
    const R10: usize = 7;
    const R9: usize = 8;
    const R8: usize = 9;
    const RAX: usize = 10;
    const RDX: usize = 12;
    const RSI: usize = 13;
    const RDI: usize = 14;
    const ORIG_RAX: usize = 15;
    const RIP: usize = 16;
    const CS: usize = 17;
    /// The code segment of programs with 64 bits.
    const CODE_OF_64_BITS: u64 = 0x33;
    /// No system call is being made, so none is to be made again.
    const NO_CALL: u64 = u64::MAX;

    /// The registers of a thread, in the order of `NT_PRSTATUS`.
    #[derive(Clone, Copy, Debug)]
    pub struct Registers(pub [u64; WORDS]);

    impl Registers {
        /// These registers, about to make a system call with the instruction at `address`.
        pub fn with_call(&self, address: u64, number: u64, arguments: [u64; 6]) -> Self {
            let mut words = self.0;
            words[RIP] = address;
            words[RAX] = number;
            words[ORIG_RAX] = NO_CALL;
            [words[RDI], words[RSI], words[RDX], words[R10], words[R8], words[R9]] = arguments;
            Self(words)
        }

        /// What a system call has returned.
        pub fn result(&self) -> u64 {
            self.0[RAX]
        }

        /// Whether the thread runs code of 64 bits.
        pub fn is_native(&self) -> bool {
            self.0[CS] == CODE_OF_64_BITS
        }
    }
}

/// Any other processor: there are no registers, so nothing can be traced.
#[cfg(not(target_arch = "x86_64"))]
mod known {
    pub const IS_SUPPORTED: bool = false;
    /// Never read. Two, so that clippy asks for a reference to them as it does for real ones.
    pub const WORDS: usize = 2;
    pub const INSTRUCTION: &[u8] = &[0];

    #[derive(Clone, Copy, Debug)]
    pub struct Registers(pub [u64; WORDS]);

    #[allow(clippy::unused_self)] // as on a processor that is supported
    impl Registers {
        pub fn with_call(&self, _address: u64, _number: u64, _arguments: [u64; 6]) -> Self {
            *self
        }

        pub fn result(&self) -> u64 {
            0
        }

        pub fn is_native(&self) -> bool {
            false
        }
    }
}
