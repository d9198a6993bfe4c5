//! Which of several servers has a key: the same one that the original's client (Cache::Memcached for Perl)
//! chooses.
//!
//! A key is hashed without the namespace; the hash picks a server from a list in which each stands as often
//! as it weighs. While that one is down the hash of the key and the number of the try are added, and so on.
//! Daemons that do not agree which servers are down look for a key in different places, as always.
//!
//! Knows: that hash. Must not know: how to talk to a server.

/// The number of places tried.
const MAX_TRIES: u32 = 20;

/// The servers by number, each as often as it weighs.
pub(super) struct Choice {
    places: Vec<usize>,
}

impl Choice {
    /// From the weights of the servers, in their order.
    pub(super) fn new(weights: impl Iterator<Item = usize>) -> Choice {
        let places = weights.enumerate().flat_map(|(server, weight)| vec![server; weight]);
        Choice { places: places.collect() }
    }

    /// The servers to try for a key (without the namespace), one after the other. One may come repeatedly.
    pub(super) fn order(&self, key: &[u8]) -> impl Iterator<Item = usize> + use<'_> {
        let tries = if self.places.len() > 1 { MAX_TRIES } else { 1 };
        let first = hash(&[key]);
        let key = if tries > 1 { key.to_owned() } else { Vec::new() };
        let steps = std::iter::once(first).chain((1..tries).map(move |number| step(number, &key)));
        let sums = steps.scan(0_usize, |sum, step| {
            *sum += step;
            Some(*sum)
        });
        sums.filter_map(|sum| self.places.get(sum % self.places.len().max(1)).copied())
    }
}

/// What is added to the hash of a key after that many tries.
fn step(number: u32, key: &[u8]) -> usize {
    hash(&[number.to_string().as_bytes(), key])
}

/// The hash of a text in parts: 15 bits of its CRC-32.
fn hash(parts: &[&[u8]]) -> usize {
    let mut crc = crc32fast::Hasher::new();
    parts.iter().for_each(|part| crc.update(part));
    usize::from((crc.finalize() >> 16) as u16 & 0x7fff)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The servers that Cache::Memcached 1.30 asked for, one after the other, while none of them could be
    /// reached: of three equal ones, and of three that weigh 3, 1 and 2. A namespace made no difference.
    const PERL: &[(&str, &str, &str)] = &[
        ("key1", "bbcaaaaacccccbbbcabb", "caabababacacaacaabca"),
        ("key2", "aaacbcbccbabbacaacba", "bbbcacaccabaabcbbcab"),
        ("key3", "bbbabbbaacaacaaccbca", "cacbcacbacababacaaab"),
        ("key4", "cbbababcaabbbcabcbca", "aacbcbccabcaccaaaaab"),
        ("key5", "ccabbcbccccccacaabac", "ccbaacaccccccbcbbabc"),
        ("key6", "babcaaaacaaabbbbccaa", "cbccababababcacaacab"),
        ("key7", "acbaacbacaaacacbbabb", "bcabbcabcbbbcbcaabaa"),
        ("key8", "aabcbcaacbacacaacaca", "abccccabaaacacababab"),
        ("key9", "bbbaabcacacacabccabc", "aaabbacbcbcbcbaccbac"),
        ("key10", "bbaaaccbccbcbcacabba", "ccaabacccacacababcaa"),
        ("key11", "bacaaaabbabbbabcabaa", "aacaaaaccaacaacaacaa"),
        ("key12", "bcabcccbbaaaabcbabca", "caaccaccaaaaacccbcca"),
        ("key13", "caaabbcccabbccabbcab", "cabaccaaaaaccaaccaac"),
        ("key14", "bbbcbbbbbaacbcbacbac", "acaacccccabaaacaacaa"),
        ("lock_4f1.5a2b3c", "cccabbbcabcccccbaccb", "aaaaacaabcaaaaccbacc"),
        ("4f1.5a2b3c", "acbbcacaababbbababbc", "accacbcbbaaacababaac"),
        ("sender@example.com,rcpt@example.org,192.0.2.1", "bbbacbccaabaaccaccca", "cacacacaabcaaccaccaa"),
        ("x", "bacbbcaabcbabcaabbac", "cacacabbaacbaaabacbc"),
    ];

    fn order(weights: &[usize], key: &str) -> String {
        let choice = Choice::new(weights.iter().copied());
        choice.order(key.as_bytes()).map(|server| char::from(b"abc"[server])).collect()
    }

    #[test]
    fn the_crc_is_that_of_zip() {
        assert_eq!(hash(&[b"1234", b"56789"]), (0xcbf4_3926_usize >> 16) & 0x7fff);
    }

    #[test]
    fn servers_are_chosen_as_the_original_chooses() {
        for (key, equal, weighted) in PERL {
            assert_eq!(order(&[1, 1, 1], key), *equal, "{key}");
            assert_eq!(order(&[3, 1, 2], key), *weighted, "{key}");
        }
        assert_eq!(order(&[1], "key1"), "a");
    }
}
