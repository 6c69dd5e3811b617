//! Inputs that several matrices multiply: what is made of them is made once.

use std::cell::Cell;
use std::ops::Range;

/// An input at its place in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shared {
    start: usize,
    end: usize,
    /// Counts up: what was made of another input at the same place is not made of this one.
    time: u64,
}

thread_local! {
    static NOW: Cell<Option<Shared>> = const { Cell::new(None) };
    static TIME: Cell<u64> = const { Cell::new(0) };
}

/// Runs `f`, in which products by the numbers at `x`, which do not change meanwhile, quantize them once if they do it alike
/// and follow each other on this thread.
pub fn sharing<R>(x: Range<*const f32>, f: impl FnOnce() -> R) -> R {
    struct Before(Option<Shared>);
    impl Drop for Before {
        fn drop(&mut self) {
            NOW.set(self.0);
        }
    }
    TIME.set(TIME.get() + 1);
    let now = Shared { start: x.start.addr(), end: x.end.addr(), time: TIME.get() };
    let _before = Before(NOW.replace(Some(now)));
    f()
}

impl Shared {
    /// If `x` is what is shared now.
    pub fn of(x: &[f32]) -> Option<Self> {
        let Range { start, end } = x.as_ptr_range();
        NOW.get().filter(|now| (now.start, now.end) == (start.addr(), end.addr()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tile::Shape;
    use super::super::{Quantization, Tokens};
    use super::*;
    use crate::kernels::Isa;

    #[test]
    fn an_input_is_quantized_once_while_it_is_shared() {
        let q = Quantization {
            k: 32,
            period: 32,
            group: 32,
            offset: 0,
            has_min: false,
            outliers: false,
            precise: false,
        };
        let (mut x, mut tokens) = (vec![1.0; 32], Tokens::default());
        let mut scale = |x: &[f32], q: &Quantization| {
            tokens.quantize(Isa::best(), x, q, Shape::in_turn(1));
            tokens.tiles()[0].scales[0] * 127.0
        };
        let place = x.as_ptr_range();
        sharing(place.clone(), || {
            assert_eq!(scale(&x, &q), 1.0);
            // Unseen, though nobody should do it; but not by another format, nor elsewhere.
            x[0] = 2.0;
            assert_eq!(scale(&x, &q), 1.0);
            assert_eq!(scale(&x, &Quantization { outliers: true, ..q }), 2.0);
            assert_eq!(scale(&[3.0; 32], &q), 3.0);
            assert_eq!(scale(&x, &q), 2.0);
            sharing(place.clone(), || assert_eq!(scale(&x, &q), 2.0));
        });
        x[0] = 4.0;
        sharing(place, || assert_eq!(scale(&x, &q), 4.0));
        x[0] = 5.0;
        assert_eq!(scale(&x, &q), 5.0);
    }
}
