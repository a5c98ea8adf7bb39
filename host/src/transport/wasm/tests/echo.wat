;; Copies stdin to stdout, and returns at the end of stdin.
(component
  (import "wasi:io/error@0.2.0" (instance $error
    (export "error" (type (sub resource)))))
  (alias export $error "error" (type $error-type))

  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "input-stream" (type $input (sub resource)))
    (export "output-stream" (type $output (sub resource)))
    (alias outer 1 $error-type (type $failure))
    (type $closed-or-failed (variant
      (case "last-operation-failed" (own $failure))
      (case "closed")))
    (export "stream-error" (type $stream-error (eq $closed-or-failed)))
    (export "[method]input-stream.blocking-read" (func
      (param "self" (borrow $input))
      (param "len" u64)
      (result (result (list u8) (error $stream-error)))))
    (export "[method]output-stream.blocking-write-and-flush" (func
      (param "self" (borrow $output))
      (param "contents" (list u8))
      (result (result (error $stream-error)))))))
  (alias export $streams "input-stream" (type $input))
  (alias export $streams "output-stream" (type $output))

  (import "wasi:cli/stdin@0.2.0" (instance $stdin
    (alias outer 1 $input (type $stream))
    (export "get-stdin" (func (result (own $stream))))))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output (type $stream))
    (export "get-stdout" (func (result (own $stream))))))

  ;; One page for results, and above it room for one list, which is overwritten.
  (core module $memory
    (memory (export "memory") 2)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      i32.const 65536))
  (core instance $memory (instantiate $memory))

  (core func $get-stdin (canon lower (func $stdin "get-stdin")))
  (core func $get-stdout (canon lower (func $stdout "get-stdout")))
  (core func $read (canon lower
    (func $streams "[method]input-stream.blocking-read")
    (memory $memory "memory") (realloc (func $memory "realloc"))))
  (core func $write (canon lower
    (func $streams "[method]output-stream.blocking-write-and-flush")
    (memory $memory "memory") (realloc (func $memory "realloc"))))

  (core module $echo
    (import "env" "memory" (memory 2))
    (import "env" "get-stdin" (func $get-stdin (result i32)))
    (import "env" "get-stdout" (func $get-stdout (result i32)))
    (import "env" "read" (func $read (param i32 i64 i32)))
    (import "env" "write" (func $write (param i32 i32 i32 i32)))
    (func (export "run") (result i32)
      (local $stdin i32) (local $stdout i32)
      (local.set $stdin (call $get-stdin))
      (local.set $stdout (call $get-stdout))
      (loop $again
        (call $read (local.get $stdin) (i64.const 4096) (i32.const 0))
        ;; The end of stdin.
        (if (i32.load8_u (i32.const 0)) (then (return (i32.const 0))))
        (call $write (local.get $stdout)
          (i32.load (i32.const 4)) (i32.load (i32.const 8)) (i32.const 16))
        ;; The reader has closed.
        (if (i32.load8_u (i32.const 16)) (then (return (i32.const 1))))
        (br $again))
      unreachable))
  (core instance $echo (instantiate $echo (with "env" (instance
    (export "memory" (memory $memory "memory"))
    (export "get-stdin" (func $get-stdin))
    (export "get-stdout" (func $get-stdout))
    (export "read" (func $read))
    (export "write" (func $write))))))

  (func $run (result (result)) (canon lift (core func $echo "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))
