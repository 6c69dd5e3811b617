//! Loops over the tokens of a tile that are written out.

/// Runs `$body` with each constant `$t` below `$n`, at most [`super::tile::TILE`], written out: in a loop, sums would lie in
/// memory.
macro_rules! each {
    ($t:ident < $n:ident, $body:block) => {
        each!($t < $n, $body, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
    };
    ($t:ident < $n:ident, $body:block, $($i:literal),*) => {
        $(
            if $i < $n {
                #[allow(non_upper_case_globals)]
                const $t: usize = $i;
                $body
            }
        )*
    };
}
