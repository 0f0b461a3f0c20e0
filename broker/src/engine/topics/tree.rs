//! The patterns of all subscriptions, as a tree of words. A node has the subscriptions of one
//! pattern, as a list through them. There is no cache of results: a topic is looked up word by
//! word, so that it costs the same whether it was seen before or not. A node without subscriptions
//! and without nodes below it is freed.

use super::subscription::Subscription;
use crate::engine::keys::{Key as _, NodeKey, OptionKey, SubscriptionKey, Table, WordKey};
use protocol::topics::OWN_WORD;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A place in the tree: the pattern of the words on the way to it.
#[derive(Debug)]
pub(super) struct Node {
    /// The node in front of its last word; the root has none.
    pub(super) parent: OptionKey<NodeKey>,
    /// The last word; none at the root and at wildcards.
    word: OptionKey<WordKey>,
    /// The node behind it for any one word.
    any: OptionKey<NodeKey>,
    /// The node behind it for all words that are left.
    rest: OptionKey<NodeKey>,
    /// How many nodes stand behind it for words, those for wildcards not counted.
    pub(super) named: u32,
    /// The subscriptions of this pattern, oldest first.
    pub(super) first: OptionKey<SubscriptionKey>,
    pub(super) last: OptionKey<SubscriptionKey>,
    pub(super) count: u32,
}

impl Node {
    const fn new(parent: OptionKey<NodeKey>, word: OptionKey<WordKey>) -> Self {
        Self {
            parent,
            word,
            any: OptionKey::NONE,
            rest: OptionKey::NONE,
            named: 0,
            first: OptionKey::NONE,
            last: OptionKey::NONE,
            count: 0,
        }
    }

    /// Whether nothing stands at it or below it.
    pub(super) fn is_unused(&self) -> bool {
        self.count == 0 && self.named == 0 && self.any.is_none() && self.rest.is_none()
    }
}

/// A word, and how many nodes have it.
#[derive(Debug)]
struct Word {
    text: Arc<str>,
    uses: u32,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Table<NodeKey, Node>,
    root: NodeKey,
    words: Table<WordKey, Word>,
    by_text: BTreeMap<Arc<str>, WordKey>,
    /// The nodes for words, by the indices of the node in front and of the word.
    named: BTreeMap<(u32, u32), OptionKey<NodeKey>>,
    /// Used again for each topic: the nodes that its words lead to so far.
    here: Vec<NodeKey>,
    ahead: Vec<NodeKey>,
}

impl Default for Tree {
    fn default() -> Self {
        let mut nodes = Table::default();
        let root = nodes.insert(Node::new(OptionKey::NONE, OptionKey::NONE));
        Self {
            nodes,
            root,
            words: Table::default(),
            by_text: BTreeMap::new(),
            named: BTreeMap::new(),
            here: Vec::new(),
            ahead: Vec::new(),
        }
    }
}

fn place(node: NodeKey, word: WordKey) -> (u32, u32) {
    (node.index() as u32, word.index() as u32)
}

impl Tree {
    /// The node of a pattern; it is made where it is not there.
    pub(super) fn grow(&mut self, pattern: &str) -> NodeKey {
        let mut at = self.root;
        for word in pattern.split('.') {
            at = match word {
                "*" => match self.nodes[at].any.get() {
                    Some(next) => next,
                    None => {
                        let next = self.add(at, OptionKey::NONE);
                        self.nodes[at].any = OptionKey::some(next);
                        next
                    }
                },
                ">" => match self.nodes[at].rest.get() {
                    Some(next) => next,
                    None => {
                        let next = self.add(at, OptionKey::NONE);
                        self.nodes[at].rest = OptionKey::some(next);
                        next
                    }
                },
                word => self.grow_word(at, word),
            };
        }
        at
    }

    fn add(&mut self, parent: NodeKey, word: OptionKey<WordKey>) -> NodeKey {
        self.nodes.insert(Node::new(OptionKey::some(parent), word))
    }

    fn grow_word(&mut self, at: NodeKey, text: &str) -> NodeKey {
        let word = match self.by_text.get(text) {
            Some(word) => *word,
            None => {
                let text: Arc<str> = text.into();
                let word = self.words.insert(Word { text: text.clone(), uses: 0 });
                self.by_text.insert(text, word);
                word
            }
        };
        if let Some(next) = self.named.get(&place(at, word)).and_then(|next| next.get()) {
            return next;
        }
        let next = self.add(at, OptionKey::some(word));
        self.named.insert(place(at, word), OptionKey::some(next));
        self.words[word].uses += 1;
        self.nodes[at].named += 1;
        next
    }

    /// Frees a node that has no subscription any more, and those in front of it that nothing needs.
    pub(super) fn free_unused(&mut self, mut at: NodeKey) {
        while at != self.root && self.nodes[at].is_unused() {
            let node = self.nodes.remove(at);
            let Some(parent) = node.parent.get() else { return };
            match node.word.get() {
                Some(word) => {
                    self.named.remove(&place(parent, word));
                    self.nodes[parent].named -= 1;
                    self.release_word(word);
                }
                None if self.nodes[parent].any.get() == Some(at) => {
                    self.nodes[parent].any = OptionKey::NONE;
                }
                None => self.nodes[parent].rest = OptionKey::NONE,
            }
            at = parent;
        }
    }

    fn release_word(&mut self, word: WordKey) {
        self.words[word].uses -= 1;
        if self.words[word].uses == 0 {
            let word = self.words.remove(word);
            self.by_text.remove(&word.text);
        }
    }

    /// Appends the nodes whose patterns match a topic and that have subscriptions. Returns how many
    /// these have, and how many nodes were visited.
    pub(super) fn find(&mut self, topic: &str, found: &mut Vec<NodeKey>) -> (u64, usize) {
        let (mut here, mut ahead) =
            (std::mem::take(&mut self.here), std::mem::take(&mut self.ahead));
        here.clear();
        here.push(self.root);
        let (mut count, mut visited) = (0, 0);
        for (index, text) in topic.split('.').enumerate() {
            let word = self.by_text.get(text);
            // The broker's own topics have to be named.
            let is_wild = index > 0 || text != OWN_WORD;
            visited += here.len();
            for &at in &here {
                let node = &self.nodes[at];
                if is_wild && let Some(rest) = node.rest.get() {
                    count += u64::from(self.nodes[rest].count);
                    found.push(rest);
                }
                if is_wild && let Some(any) = node.any.get() {
                    ahead.push(any);
                }
                if node.named > 0
                    && let Some(word) = word
                    && let Some(next) = self.named.get(&place(at, *word)).and_then(|n| n.get())
                {
                    ahead.push(next);
                }
            }
            std::mem::swap(&mut here, &mut ahead);
            ahead.clear();
            if here.is_empty() {
                break;
            }
        }
        for &at in &here {
            if self.nodes[at].count > 0 {
                count += u64::from(self.nodes[at].count);
                found.push(at);
            }
        }
        (self.here, self.ahead) = (here, ahead);
        (count, visited)
    }

    /// The pattern of a node.
    pub(super) fn pattern(&self, mut at: NodeKey) -> String {
        let mut words: Vec<&str> = Vec::new();
        while let Some(parent) = self.nodes[at].parent.get() {
            words.push(match self.nodes[at].word.get() {
                Some(word) => &self.words[word].text,
                None if self.nodes[parent].any.get() == Some(at) => "*",
                None => ">",
            });
            at = parent;
        }
        words.reverse();
        words.join(".")
    }

    /// A node, which may be gone.
    pub(super) fn node(&self, at: NodeKey) -> Option<&Node> {
        self.nodes.get(at)
    }

    /// All nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (NodeKey, &Node)> {
        self.nodes.iter()
    }

    /// Puts a subscription behind those of its node.
    pub(super) fn append(
        &mut self,
        key: SubscriptionKey,
        subscriptions: &mut Table<SubscriptionKey, Subscription>,
    ) {
        let node = &mut self.nodes[subscriptions[key].node];
        subscriptions[key].previous = node.last;
        match node.last.get() {
            Some(last) => subscriptions[last].next = OptionKey::some(key),
            None => node.first = OptionKey::some(key),
        }
        node.last = OptionKey::some(key);
        node.count += 1;
    }

    /// Takes a subscription out of the list of its node, which may be freed with that.
    pub(super) fn unlink(
        &mut self,
        key: SubscriptionKey,
        subscriptions: &mut Table<SubscriptionKey, Subscription>,
    ) {
        let Subscription { node: at, previous, next, .. } = subscriptions[key];
        let node = &mut self.nodes[at];
        match previous.get() {
            Some(previous) => subscriptions[previous].next = next,
            None => node.first = next,
        }
        match next.get() {
            Some(next) => subscriptions[next].previous = previous,
            None => node.last = previous,
        }
        node.count -= 1;
        self.free_unused(at);
    }

    /// Gives back the memory of a burst.
    pub(super) fn shrink(&mut self) {
        self.nodes.shrink_to_fit();
        self.words.shrink_to_fit();
        (self.here, self.ahead) = (Vec::new(), Vec::new());
    }

    /// Numbers of nodes, of words, and of the entries that find them; for the laws.
    pub(super) fn sizes(&self) -> (usize, usize, usize, usize) {
        (self.nodes.len(), self.words.len(), self.by_text.len(), self.named.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::topics::subscription::Subscriber;
    use protocol::LinkId;
    use protocol::topics::Pattern;

    const WORDS: [&str; 4] = ["a", "b", "isect", "*"];

    /// Numbers that look random, always the same ones.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) as usize % end
        }

        fn words(&mut self, kinds: usize) -> String {
            let count = 1 + self.below(4);
            let words: Vec<&str> = (0..count).map(|_| WORDS[self.below(kinds)]).collect();
            words.join(".")
        }

        fn pattern(&mut self) -> String {
            let words = self.words(4);
            match self.below(6) {
                0 => ">".to_owned(),
                1 | 2 => words + ".>",
                _ => words,
            }
        }
    }

    #[test]
    fn the_tree_finds_what_the_patterns_match_and_keeps_nothing_that_is_gone() {
        let mut numbers = Numbers(7);
        let (mut tree, mut subscriptions) = (Tree::default(), Table::default());
        let mut there: Vec<(SubscriptionKey, String)> = Vec::new();
        let subscriber = Subscriber::Link { link: LinkId::default(), number: 1 };
        for _ in 0..4000 {
            if there.len() < 40 || numbers.below(2) == 0 {
                let pattern = numbers.pattern();
                let node = tree.grow(&pattern);
                assert_eq!(tree.pattern(node), pattern);
                let key = subscriptions.insert(Subscription::new(subscriber, (node, false), 0));
                tree.append(key, &mut subscriptions);
                there.push((key, pattern));
            } else {
                let (key, _) = there.swap_remove(numbers.below(there.len()));
                tree.unlink(key, &mut subscriptions);
                subscriptions.remove(key);
            }
            let topic = numbers.words(3);
            let mut nodes = Vec::new();
            let (count, _) = tree.find(&topic, &mut nodes);
            let mut found = Vec::new();
            for node in nodes {
                let mut at = tree.node(node).and_then(|node| node.first.get());
                while let Some(key) = at {
                    found.push(key);
                    at = subscriptions[key].next.get();
                }
            }
            let is_match = |text: &str| Pattern::new(text).unwrap().matches(&topic);
            let matching = there.iter().filter(|(_, pattern)| is_match(pattern));
            let mut expected: Vec<SubscriptionKey> = matching.map(|(key, _)| *key).collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{topic}");
            assert_eq!(count, expected.len() as u64);
        }
        for (key, _) in there {
            tree.unlink(key, &mut subscriptions);
        }
        assert_eq!(tree.sizes(), (1, 0, 0, 0));
    }
}
