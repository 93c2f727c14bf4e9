//! Source → admit → apply → prune → status, for a Git repository or a watched folder of cluster specs.
//!
//! May enter: api, validate, cluster, git2, notify. Stays out: the controller. What Git says is only ever applied through
//! the door `cluster`; what comes out of a repository is hostile until it is admitted.
