// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The CPU's BLAS: the functions of the same names in the library behind this one.
// UNSAFETY: symbols are looked up by the loader and become functions of the BLAS's types.
#![expect(unsafe_code)]

use std::ffi::{c_char, c_void, CStr};
use std::sync::OnceLock;

use crate::message;
use crate::real::Real;

/// Fortran's default integer.
pub type Int = i32;
/// `GEMM`, with the lengths of its character arguments behind it.
pub type GemmFn<T> = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const Int,
    *const Int,
    *const Int,
    *const T,
    *const T,
    *const Int,
    *const T,
    *const Int,
    *const T,
    *mut T,
    *const Int,
    usize,
    usize,
);
/// `SYRK`, likewise.
pub type SyrkFn<T> = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const Int,
    *const Int,
    *const T,
    *const T,
    *const Int,
    *const T,
    *mut T,
    *const Int,
    usize,
    usize,
);
/// `SYMM`, likewise.
pub type SymmFn<T> = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const Int,
    *const Int,
    *const T,
    *const T,
    *const Int,
    *const T,
    *const Int,
    *const T,
    *mut T,
    *const Int,
    usize,
    usize,
);
/// `TRSM`, likewise.
pub type TrsmFn<T> = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const c_char,
    *const c_char,
    *const Int,
    *const Int,
    *const T,
    *const T,
    *const Int,
    *mut T,
    *const Int,
    usize,
    usize,
    usize,
    usize,
);
/// `GEMV`, likewise.
pub type GemvFn<T> = unsafe extern "C" fn(
    *const c_char,
    *const Int,
    *const Int,
    *const T,
    *const T,
    *const Int,
    *const T,
    *const Int,
    *const T,
    *mut T,
    *const Int,
    usize,
);
/// `DOT`.
pub type DotFn<T> =
    unsafe extern "C" fn(*const Int, *const T, *const Int, *const T, *const Int) -> T;

/// The CPU's functions of one precision.
#[derive(Clone, Copy, Debug)]
pub struct Cpu<T> {
    /// Matrix product.
    pub gemm: GemmFn<T>,
    /// Product of a matrix with its transpose.
    pub syrk: SyrkFn<T>,
    /// Product with a symmetric matrix.
    pub symm: SymmFn<T>,
    /// Solution of triangular systems.
    pub trsm: TrsmFn<T>,
}

/// Those of levels 1 and 2.
#[derive(Clone, Copy, Debug)]
pub struct CpuVectors<T> {
    /// Product of a matrix and a vector.
    pub gemv: GemvFn<T>,
    /// Product of two vectors.
    pub dot: DotFn<T>,
}

/// A precision that the CPU's BLAS has functions of.
pub trait OnCpu: Real {
    /// The CPU's functions.
    fn cpu() -> &'static Cpu<Self>;
    /// Those of levels 1 and 2.
    fn cpu_vectors() -> &'static CpuVectors<Self>;
}

macro_rules! on_cpu {
    ($type:ty: $gemm:literal $syrk:literal $symm:literal $trsm:literal
     $gemv:literal $dot:literal) => {
        impl OnCpu for $type {
            fn cpu() -> &'static Cpu<Self> {
                static CPU: OnceLock<Cpu<$type>> = OnceLock::new();
                CPU.get_or_init(|| {
                    // SAFETY: A library that is a BLAS has functions of these types under these
                    // names; the lengths behind their arguments are what Fortran compilers pass, and
                    // a function in C ignores them.
                    unsafe {
                        Cpu {
                            gemm: std::mem::transmute::<*mut c_void, GemmFn<$type>>(symbol($gemm)),
                            syrk: std::mem::transmute::<*mut c_void, SyrkFn<$type>>(symbol($syrk)),
                            symm: std::mem::transmute::<*mut c_void, SymmFn<$type>>(symbol($symm)),
                            trsm: std::mem::transmute::<*mut c_void, TrsmFn<$type>>(symbol($trsm)),
                        }
                    }
                })
            }

            fn cpu_vectors() -> &'static CpuVectors<Self> {
                static CPU: OnceLock<CpuVectors<$type>> = OnceLock::new();
                CPU.get_or_init(|| {
                    // SAFETY: As above.
                    unsafe {
                        CpuVectors {
                            gemv: std::mem::transmute::<*mut c_void, GemvFn<$type>>(symbol($gemv)),
                            dot: std::mem::transmute::<*mut c_void, DotFn<$type>>(symbol($dot)),
                        }
                    }
                })
            }
        }
    };
}

on_cpu!(f32: c"sgemm_" c"ssyrk_" c"ssymm_" c"strsm_" c"sgemv_" c"sdot_");
on_cpu!(f64: c"dgemm_" c"dsyrk_" c"dsymm_" c"dtrsm_" c"dgemv_" c"ddot_");

/// Name that this library needs the CPU's BLAS by.
const LIBRARY: &str = concat!(env!("COAX_CPU_BLAS"), "\0");

/// Address of a function of the CPU's BLAS. A program that calls one that is not there ends, as it would
/// if the loader had found out.
pub fn symbol(name: &CStr) -> *mut c_void {
    static HANDLE: OnceLock<usize> = OnceLock::new();
    let handle = *HANDLE.get_or_init(|| {
        // The loader has it by this name already: this library needs it.
        let (name, flags) = (LIBRARY.as_ptr().cast(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        // SAFETY: The name ends with a zero byte, and nothing is loaded that would run code.
        let handle = unsafe { libc::dlopen(name, flags) };
        handle.expose_provenance()
    });
    let handle = match handle {
        0 => libc::RTLD_NEXT,
        handle => std::ptr::with_exposed_provenance_mut(handle),
    };
    // SAFETY: The handle is one of the loader's, or the one that means "after this library"; the name
    // ends with a zero byte.
    let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
    if address.is_null() {
        message::abort(format_args!(
            "the CPU's BLAS behind {} has no {}; see the README about cpu-blas/chosen",
            env!("COAX_CPU_BLAS"),
            name.to_string_lossy()
        ));
    }
    address
}
