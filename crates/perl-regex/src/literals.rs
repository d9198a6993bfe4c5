//! What a value must contain for a pattern to match it.
//!
//! Knows: trees. Must not know: lists.

use crate::class::ByteSet;
use crate::tree::Node;

/// Shorter ones are in too many values.
const SHORTEST: usize = 3;

/// Longer ones are cut into pieces of this length.
const LONGEST: usize = 24;

/// The most of which one has to be there.
const MOST: usize = 8;

/// The most requirements that are looked at, of which the longest are kept: one of them has to tell the
/// pattern apart.
const MOST_REQUIREMENTS: usize = 6;

/// Texts in lower case of which a value that the pattern matches contains one, in any case.
pub(crate) type Requirement = Vec<Vec<u8>>;

/// What is known of the values that the pattern matches: each holds for all of them, the strictest first.
pub(crate) fn required(tree: &Node) -> Vec<Requirement> {
    match tree {
        Node::Concat(items) => of_sequence(items),
        Node::Capture(_, node) | Node::Atomic(node) => required(node),
        Node::Repeat { node, min, .. } if *min > 0 => required(node),
        Node::Alternatives(branches) => of_branches(branches).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// What one or the other branch requires.
fn of_branches(branches: &[Node]) -> Option<Requirement> {
    let mut all = Vec::new();
    for branch in branches {
        let branch = match exact(branch) {
            Some(text) => pieces(&text).next().map(|piece| vec![piece.to_vec()]),
            None => required(branch).into_iter().next(),
        };
        all.extend(branch?);
        if all.len() > MOST {
            return None;
        }
    }
    Some(all)
}

/// What the parts of a sequence require, and bytes that stand side by side.
fn of_sequence(items: &[Node]) -> Vec<Requirement> {
    let mut all = Vec::new();
    let mut run = Vec::new();
    for item in items {
        match exact(item) {
            Some(text) => run.extend_from_slice(&text),
            None => {
                all.extend(pieces(&run).map(|piece| vec![piece.to_vec()]));
                run.clear();
                all.extend(required(item));
            }
        }
    }
    all.extend(pieces(&run).map(|piece| vec![piece.to_vec()]));
    let shortest = |requirement: &Requirement| requirement.iter().map(Vec::len).min().unwrap_or(0);
    all.sort_by_key(|requirement| std::cmp::Reverse(shortest(requirement)));
    all.truncate(MOST_REQUIREMENTS);
    all
}

/// The pieces of a text that are long enough; the last one reaches to its end.
fn pieces(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let count = if text.len() < SHORTEST { 0 } else { text.len().div_ceil(LONGEST) };
    (0..count).map(|n| {
        let begin = (n * LONGEST).min(text.len().saturating_sub(LONGEST));
        &text[begin..(begin + LONGEST).min(text.len())]
    })
}

/// The only text that the node matches, in lower case.
fn exact(node: &Node) -> Option<Vec<u8>> {
    match node {
        Node::Empty | Node::Assert(_) | Node::Look { .. } => Some(Vec::new()),
        Node::Set(set) => letter(set).map(|byte| vec![byte]),
        Node::Capture(_, node) | Node::Atomic(node) => exact(node),
        Node::Concat(items) => {
            items.iter().map(exact).collect::<Option<Vec<_>>>().map(|texts| texts.concat())
        }
        _ => None,
    }
}

fn letter(set: &ByteSet) -> Option<u8> {
    let byte = set.first()?.to_ascii_lowercase();
    let mut both = ByteSet::default();
    both.insert(byte);
    both.insert(byte.to_ascii_uppercase());
    both.contains_all(set).then_some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::translate;
    use crate::tree;

    #[test]
    fn what_a_pattern_requires_is_found() {
        for (pattern, requirements) in [
            (r"^(ppp|dial|pool)[-.]?\d+\.isp7\.net$", vec![vec![".isp7.net"], vec!["ppp", "dial", "pool"]]),
            (r"^(ppp|dial|pool)[-.]?\d+\.", vec![vec!["ppp", "dial", "pool"]]),
            (r"(?i)MAIL(?=x)(ing)+\d", vec![vec!["mail"], vec!["ing"]]),
            (r"a(bc)d.*xy", vec![vec!["abcd"]]),
            (r"(abc)?x.y", vec![]),
            (r"(abc|de)\d", vec![]),
            (r"\d+", vec![]),
            (r"(foo|bar)+\.(a|b)", vec![vec!["foo", "bar"]]),
            (
                r"\.a-provider\.customers\.isp7\.example$",
                vec![vec![".a-provider.customers.is"], vec!["r.customers.isp7.example"]],
            ),
        ] {
            let tree = tree::parse(&translate(pattern).unwrap().source).unwrap();
            let wanted: Vec<Requirement> = requirements
                .iter()
                .map(|texts| texts.iter().map(|text| text.as_bytes().to_vec()).collect())
                .collect();
            assert_eq!(required(&tree), wanted, "{pattern}");
        }
    }

    #[test]
    fn no_byte_of_a_long_text_is_left_out() {
        for length in SHORTEST..100 {
            let text: Vec<u8> = (0..100).take(length).collect();
            let found: Vec<u8> = pieces(&text).flatten().copied().collect();
            assert!(text.iter().all(|byte| found.contains(byte)), "{length}");
            assert!(pieces(&text).all(|piece| (SHORTEST..=LONGEST).contains(&piece.len())));
        }
        assert_eq!((pieces(b"").count(), pieces(b"ab").count()), (0, 0));
    }
}
