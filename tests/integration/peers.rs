//! What detach does better than its peers, beside survival. `cargo bench --bench tables` measures the peers in the same
//! way.

use crate::support::peers::{WAYS, measure};

#[test]
fn detach_has_none_of_the_faults_of_its_peers() {
    let facts = measure(WAYS[0].1);
    assert_eq!(facts.statuses, ["127", "126", "126", "127"]);
    assert!(facts.returns_from_substitution);
    assert!(!facts.keeps_lock);
    assert!(!facts.passes_ignored_interrupt_on);
    assert!(!facts.keeps_terminal);
    assert!(facts.leads_session);
}
