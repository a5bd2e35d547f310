//! How sure it is that a process belongs to a job.
//!
//! `session` and `rescued` judge each process alone; whether it counts depends on the others that were found with it.

/// Whether a process belongs to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belonging {
    /// It does, and so do the others of its session, or of its process group if detach has let go of the job.
    Certain,
    /// It does, which says nothing about others.
    CertainAlone,
    /// It does if another does for certain.
    IfOthersDo,
    No,
}

impl Belonging {
    /// Whether the process counts, if another of the same job belongs to it for certain or if none does.
    pub fn counts(self, is_another_certain: bool) -> bool {
        match self {
            Self::Certain | Self::CertainAlone => true,
            Self::IfOthersDo => is_another_certain,
            Self::No => false,
        }
    }
}
