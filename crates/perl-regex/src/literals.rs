//! What a value must contain for a pattern to match it.
//!
//! Knows: trees. Must not know: lists.

use crate::class::ByteSet;
use crate::tree::Node;

/// Shorter ones are in too many values.
const SHORTEST: usize = 3;

/// Longer ones are cut: the beginning tells values apart.
const LONGEST: usize = 24;

/// The most of which one has to be there.
const MOST: usize = 8;

/// Texts in lower case of which a value that the pattern matches contains one, in any case; `None` if none
/// are known.
pub(crate) fn required(tree: &Node) -> Option<Vec<Vec<u8>>> {
    match tree {
        Node::Concat(items) => of_sequence(items),
        Node::Set(_) => None,
        Node::Capture(_, node) | Node::Atomic(node) => required(node),
        Node::Repeat { node, min, .. } if *min > 0 => required(node),
        Node::Alternatives(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(required(branch)?);
                if all.len() > MOST {
                    return None;
                }
            }
            Some(all)
        }
        _ => None,
    }
}

/// The best of a sequence: that of one of its parts, or bytes that stand side by side.
fn of_sequence(items: &[Node]) -> Option<Vec<Vec<u8>>> {
    let mut best: Option<Vec<Vec<u8>>> = None;
    let mut run = Vec::new();
    for item in items {
        let whole = exact(item);
        if let Some(text) = &whole {
            run.extend_from_slice(text);
            continue;
        }
        better(&mut best, Some(vec![std::mem::take(&mut run)]));
        better(&mut best, required(item));
    }
    better(&mut best, Some(vec![run]));
    best
}

fn better(best: &mut Option<Vec<Vec<u8>>>, mut other: Option<Vec<Vec<u8>>>) {
    other.iter_mut().flatten().for_each(|text| text.truncate(LONGEST));
    let worth = |texts: &Option<Vec<Vec<u8>>>| {
        texts.as_ref().map_or(0, |texts| texts.iter().map(Vec::len).min().unwrap_or(0))
    };
    if worth(&other) >= SHORTEST && worth(&other) > worth(best) {
        *best = other;
    }
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
    fn the_best_text_is_found() {
        for (pattern, texts) in [
            (r"^(ppp|dial|pool)[-.]?\d+\.isp7\.net$", vec![".isp7.net"]),
            (r"^(ppp|dial|pool)[-.]?\d+\.", vec!["ppp", "dial", "pool"]),
            (r"(?i)MAIL(?=x)(ing)+\d", vec!["mail"]),
            (r"a(bc)d.*xy", vec!["abcd"]),
            (r"(abc)?x.y", vec![]),
            (r"(abc|de)\d", vec![]),
            (r"\d+", vec![]),
            (r"(foo|bar)+\.(a|b)", vec!["foo", "bar"]),
        ] {
            let tree = tree::parse(&translate(pattern).unwrap().source).unwrap();
            let found = required(&tree).unwrap_or_default();
            let wanted: Vec<_> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
            assert_eq!(found, wanted, "{pattern}");
        }
    }
}
