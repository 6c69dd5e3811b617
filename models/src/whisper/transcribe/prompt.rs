//! What a window is told of the text before it.

/// Text so far, as far as it may go before a window.
#[derive(Debug)]
pub(super) struct Previous {
    /// Stands before every window.
    carried: Vec<u32>,
    /// What was said, the initial prompt before it if that is not carried.
    said: Vec<u32>,
    /// Tokens that fit before a window.
    room: usize,
}

impl Previous {
    /// `context` is the number of positions of the decoder: half of them, less one, are for earlier text.
    pub fn new(initial: Vec<u32>, carry: bool, hotwords: Vec<u32>, context: usize) -> Self {
        let room = (context / 2).saturating_sub(1);
        let (mut carried, said) = if carry { (initial, Vec::new()) } else { (Vec::new(), initial) };
        carried.extend(hotwords);
        Self { carried, said, room }
    }

    /// Adds what a window said. If it is not `trusted`, the next window is not told of it, nor of what was before.
    pub fn add(&mut self, said: &[u32], trusted: bool) {
        if !trusted {
            self.said.clear();
            return;
        }
        self.said.extend_from_slice(said);
        // Only the last tokens are ever told.
        self.said.drain(..self.said.len().saturating_sub(self.room));
    }

    /// What the next window is told.
    pub fn tokens(&self) -> Vec<u32> {
        let room = self.room.saturating_sub(self.carried.len());
        let mut tokens = self.carried.clone();
        tokens.extend_from_slice(&self.said[self.said.len().saturating_sub(room)..]);
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_text_is_told() {
        let mut previous = Previous::new(vec![1, 2], false, Vec::new(), 12);
        assert_eq!(previous.tokens(), [1, 2]);
        previous.add(&[3, 4, 5, 6], true);
        assert_eq!(previous.tokens(), [2, 3, 4, 5, 6], "as many as fit into half the context less one");
    }

    #[test]
    fn what_is_not_trusted_is_not_told_nor_what_was_before() {
        let mut previous = Previous::new(vec![1], false, vec![9], 12);
        previous.add(&[3], true);
        previous.add(&[4], false);
        assert_eq!(previous.tokens(), [9], "hotwords stay");
        previous.add(&[5], true);
        assert_eq!(previous.tokens(), [9, 5]);
    }

    #[test]
    fn a_carried_prompt_stays() {
        let mut previous = Previous::new(vec![1, 2], true, vec![9], 12);
        previous.add(&[3, 4, 5], true);
        assert_eq!(previous.tokens(), [1, 2, 9, 4, 5]);
        previous.add(&[6], false);
        assert_eq!(previous.tokens(), [1, 2, 9]);
    }
}
