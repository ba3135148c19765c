// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Freivalds' check of a matrix product: C = A·B is proved by C·x = A·(B·x) for random x.
//!
//! The matrices hold small integers, so every number in the product and in the check is an
//! integer that both f32 and i64 hold exactly: there is no tolerance in which an error could
//! hide. A wrong C passes one vector with a probability below 2⁻²⁰, since each element of x is
//! one of more than 2²⁰ values.
#![forbid(unsafe_code)]

use crate::rng::Rng;

/// Elements of A and B lie in −8 … 8: with up to 2¹⁸ columns a sum of products stays below 2²⁴,
/// the largest range of integers that f32 holds exactly.
pub const ELEMENT_LIMIT: i64 = 8;
/// Elements of x lie in −2²⁰ … 2²⁰. With 2¹⁸ columns |A·(B·x)| ≤ (2¹⁸ · 2³)² · 2²⁰ = 2⁶².
const VECTOR_LIMIT: i64 = 1 << 20;

/// Random vectors for each product: a wrong one passes with a probability below 2⁻⁸⁰.
pub const VECTORS: usize = 4;

/// A number that a matrix can hold.
pub trait Element: Copy {
    /// From a small integer, exactly.
    fn from_small(value: i64) -> Self;
    /// To an integer, if it is one.
    fn to_integer(self) -> Option<i64>;
}

/// The integer that an f64 is, if it is one; what does not fit an i64 comes back changed.
fn exact(value: f64) -> Option<i64> {
    let integer = value as i64;
    (integer as f64 == value).then_some(integer)
}

impl Element for f32 {
    fn from_small(value: i64) -> Self {
        value as f32
    }

    fn to_integer(self) -> Option<i64> {
        exact(f64::from(self))
    }
}

impl Element for f64 {
    fn from_small(value: i64) -> Self {
        value as f64
    }

    fn to_integer(self) -> Option<i64> {
        exact(self)
    }
}

/// A row-major n×n matrix of random small integers.
pub fn random_matrix<T: Element>(n: usize, rng: &mut Rng) -> Vec<T> {
    (0..n * n)
        .map(|_| T::from_small(rng.signed(ELEMENT_LIMIT)))
        .collect()
}

/// One element of each of the random vectors, or of their products with a matrix.
type Row = [i64; VECTORS];

/// Whether C = A·B for row-major n×n matrices; the error says what is wrong.
pub fn check<T: Element>([a, b, c]: [&[T]; 3], n: usize, rng: &mut Rng) -> Result<(), String> {
    let x: Vec<Row> = (0..n)
        .map(|_| Row::map([0; VECTORS], |_| rng.signed(VECTOR_LIMIT)))
        .collect();
    let expected = times(a, &times(b, &x)?)?;
    let actual = times(c, &x)?;
    match (0..n).find(|&row| expected[row] != actual[row]) {
        None => Ok(()),
        Some(row) => Err(format!(
            "row {row} of C·x is {:?}, not {:?}",
            actual[row], expected[row]
        )),
    }
}

/// The products of a matrix and all vectors; wrapping, since a wrong C may hold anything.
fn times<T: Element>(matrix: &[T], vectors: &[Row]) -> Result<Vec<Row>, String> {
    let mut product = Vec::with_capacity(vectors.len());
    for (row, elements) in matrix.chunks_exact(vectors.len()).enumerate() {
        let mut sums = [0i64; VECTORS];
        for (element, x) in elements.iter().zip(vectors) {
            let element = element
                .to_integer()
                .ok_or_else(|| format!("row {row} holds no integer"))?;
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = sum.wrapping_add(element.wrapping_mul(*x));
            }
        }
        product.push(sums);
    }
    Ok(product)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn multiply<T: Element>(a: &[T], b: &[T], n: usize) -> Vec<T> {
        let at = |m: &[T], row: usize, column: usize| m[row * n + column].to_integer();
        (0..n * n)
            .map(|cell| {
                let sum = (0..n).map(|k| at(a, cell / n, k)?.checked_mul(at(b, k, cell % n)?));
                T::from_small(sum.sum::<Option<i64>>().expect("small integers"))
            })
            .collect()
    }

    #[test]
    fn right_products_pass_in_both_precisions() {
        let mut rng = Rng::new(3);
        let (a, b) = (
            random_matrix::<f64>(33, &mut rng),
            random_matrix(33, &mut rng),
        );
        let c = multiply(&a, &b, 33);
        assert_eq!(check([&a, &b, &c], 33, &mut rng), Ok(()));
        let (a, b) = (
            random_matrix::<f32>(20, &mut rng),
            random_matrix(20, &mut rng),
        );
        let c = multiply(&a, &b, 20);
        assert_eq!(check([&a, &b, &c], 20, &mut rng), Ok(()));
    }

    #[test]
    fn one_wrong_element_is_found() {
        let mut rng = Rng::new(4);
        let (a, b) = (
            random_matrix::<f64>(33, &mut rng),
            random_matrix(33, &mut rng),
        );
        let mut c = multiply(&a, &b, 33);
        c[40] += 1.0;
        let error = check([&a, &b, &c], 33, &mut rng);
        assert!(error.is_err_and(|text| text.starts_with("row 1 ")));
    }

    #[test]
    fn fractions_and_elements_never_written_are_found() {
        let mut rng = Rng::new(5);
        let (a, b) = (
            random_matrix::<f32>(4, &mut rng),
            random_matrix(4, &mut rng),
        );
        for wrong in [f32::NAN, f32::INFINITY, 0.5] {
            let mut c = multiply(&a, &b, 4);
            c[5] = wrong;
            assert!(check([&a, &b, &c], 4, &mut rng).is_err(), "{wrong}");
        }
    }
}
