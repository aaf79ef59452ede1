//! Which nodes the links of layer 0 lead to.

use super::links::Links;

/// Which nodes layer 0 leads to from the entry point. Links that lead nowhere are passed over.
pub(crate) fn reachable(links: Links<'_>) -> Vec<bool> {
    let mut reached = vec![false; links.node_count() as usize];
    if let Some(entry) = reached.first_mut() {
        *entry = true;
        follow(links, 0, |_, to| {
            let seen = reached.get_mut(to as usize);
            seen.is_some_and(|seen| !std::mem::replace(seen, true))
        });
    }
    reached
}

/// Follows the links of layer 0 from a node on. `is_new` is asked of each link from and to, and whether to go on there.
pub(crate) fn follow(links: Links<'_>, node: u32, mut is_new: impl FnMut(u32, u32) -> bool) {
    // Each node is put there once, so that the stack stays small.
    let mut stack = vec![node];
    while let Some(from) = stack.pop() {
        stack.extend(links.neighbors(from, 0).filter(|&to| is_new(from, to)));
    }
}
