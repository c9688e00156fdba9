//! Continues token ids with a bundle of a language model, greedily, by `xlstm_session.h`.
//!
//!     generate RUNTIME BUNDLE COUNT ID...
//!
//! RUNTIME is ONNX Runtime's shared library.
use std::ffi::{c_char, c_void, CStr, CString};
use std::io::Write;
use std::ptr::{null, null_mut};

#[repr(C)]
struct Options {
    runtime_library: *const c_char,
    kernel_library: *const c_char,
    engine: *const c_char,
    threads: i32,
    gpu: i32,
}

#[repr(C)]
struct Generation {
    max_new_tokens: i64,
    temperature: f64,
    top_k: i64,
    top_p: f64,
    seed: u64,
    stop: *const i64,
    stop_count: usize,
}

type OnToken = extern "C" fn(*mut c_void, i64) -> i32;

#[link(name = "xlstm_session")]
extern "C" {
    fn xlstm_session_error() -> *const c_char;
    fn xlstm_session_open(
        bundle: *const c_char,
        options: *const Options,
        session: *mut *mut c_void,
    ) -> i32;
    fn xlstm_session_close(session: *mut c_void);
    fn xlstm_session_generate(
        session: *mut c_void,
        prompt: *const i64,
        count: usize,
        options: *const Generation,
        on_token: OnToken,
        context: *mut c_void,
        states: *mut *mut c_void,
    ) -> i32;
}

/// What the library says of a status that is not 0.
fn check(status: i32) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    let message = unsafe { CStr::from_ptr(xlstm_session_error()) };
    Err(message.to_string_lossy().into_owned())
}

struct Session(*mut c_void);

impl Session {
    fn open(runtime: &str, bundle: &str) -> Result<Session, String> {
        let text = |word: &str| CString::new(word).map_err(|error| error.to_string());
        let (runtime, bundle) = (text(runtime)?, text(bundle)?);
        let options = Options {
            runtime_library: runtime.as_ptr(),
            kernel_library: null(),
            engine: null(),
            threads: 0,
            gpu: 0,
        };
        let mut session = null_mut();
        check(unsafe { xlstm_session_open(bundle.as_ptr(), &options, &mut session) })?;
        Ok(Session(session))
    }

    /// Calls `on_token` with each new id.
    fn generate(
        &self,
        prompt: &[i64],
        count: i64,
        mut on_token: &mut dyn FnMut(i64),
    ) -> Result<(), String> {
        extern "C" fn pass_on(context: *mut c_void, token: i64) -> i32 {
            let on_token = unsafe { &mut *(context as *mut &mut dyn FnMut(i64)) };
            on_token(token);
            0
        }
        let options = Generation {
            max_new_tokens: count,
            temperature: 0.0,
            top_k: 0,
            top_p: 0.0,
            seed: 0,
            stop: null(),
            stop_count: 0,
        };
        let context = &mut on_token as *mut &mut dyn FnMut(i64) as *mut c_void;
        check(unsafe {
            xlstm_session_generate(
                self.0,
                prompt.as_ptr(),
                prompt.len(),
                &options,
                pass_on,
                context,
                null_mut(),
            )
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        unsafe { xlstm_session_close(self.0) }
    }
}

fn number(word: &str) -> Result<i64, String> {
    word.parse().map_err(|_| format!("\"{word}\": expected a whole number"))
}

fn run(words: &[String]) -> Result<(), String> {
    let [runtime, bundle, count, ids @ ..] = words else {
        return Err("usage: generate RUNTIME BUNDLE COUNT ID...".to_string());
    };
    let session = Session::open(runtime, bundle)?;
    let prompt = ids.iter().map(|word| number(word)).collect::<Result<Vec<_>, _>>()?;
    let mut separator = "";
    session.generate(&prompt, number(count)?, &mut |token| {
        print!("{separator}{token}");
        let _ = std::io::stdout().flush();
        separator = " ";
    })?;
    println!();
    Ok(())
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Err(message) = run(&words) {
        eprintln!("error: {message}");
        std::process::exit(1);
    }
}
