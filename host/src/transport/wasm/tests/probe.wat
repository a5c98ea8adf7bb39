;; Succeeds if it finds no environment, arguments or directories, and may not create a
;; socket.
(component
  (import "wasi:cli/environment@0.2.0" (instance $environment
    (export "get-environment" (func (result (list (tuple string string)))))
    (export "get-arguments" (func (result (list string))))))

  (import "wasi:filesystem/types@0.2.0" (instance $files
    (export "descriptor" (type (sub resource)))))
  (alias export $files "descriptor" (type $descriptor))
  (import "wasi:filesystem/preopens@0.2.0" (instance $preopens
    (alias outer 1 $descriptor (type $outer))
    (export "descriptor" (type $descriptor (eq $outer)))
    (export "get-directories" (func (result (list (tuple (own $descriptor) string)))))))

  (import "wasi:sockets/network@0.2.0" (instance $network
    (type $codes (enum "unknown" "access-denied" "not-supported" "invalid-argument"
      "out-of-memory" "timeout" "concurrency-conflict" "not-in-progress" "would-block"
      "invalid-state" "new-socket-limit" "address-not-bindable" "address-in-use"
      "remote-unreachable" "connection-refused" "connection-reset" "connection-aborted"
      "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
      "permanent-resolver-failure"))
    (export "error-code" (type (eq $codes)))
    (type $families (enum "ipv4" "ipv6"))
    (export "ip-address-family" (type (eq $families)))))
  (alias export $network "error-code" (type $error-code))
  (alias export $network "ip-address-family" (type $family))
  (import "wasi:sockets/tcp@0.2.0" (instance $tcp
    (export "tcp-socket" (type (sub resource)))))
  (alias export $tcp "tcp-socket" (type $socket))
  (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $create
    (alias outer 1 $error-code (type $outer-code))
    (export "error-code" (type $code (eq $outer-code)))
    (alias outer 1 $family (type $outer-family))
    (export "ip-address-family" (type $family (eq $outer-family)))
    (alias outer 1 $socket (type $outer-socket))
    (export "tcp-socket" (type $socket (eq $outer-socket)))
    (export "create-tcp-socket" (func
      (param "address-family" $family)
      (result (result (own $socket) (error $code)))))))

  (core module $memory
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 4096))
  (core instance $memory (instantiate $memory))
  (core func $variables (canon lower (func $environment "get-environment")
    (memory $memory "memory") (realloc (func $memory "realloc"))))
  (core func $arguments (canon lower (func $environment "get-arguments")
    (memory $memory "memory") (realloc (func $memory "realloc"))))
  (core func $directories (canon lower (func $preopens "get-directories")
    (memory $memory "memory") (realloc (func $memory "realloc"))))
  (core func $socket (canon lower (func $create "create-tcp-socket")
    (memory $memory "memory")))

  (core module $probe
    (import "env" "memory" (memory 1))
    (import "env" "variables" (func $variables (param i32)))
    (import "env" "arguments" (func $arguments (param i32)))
    (import "env" "directories" (func $directories (param i32)))
    (import "env" "socket" (func $socket (param i32 i32)))
    (func (export "run") (result i32)
      ;; Each list is a pointer and a length.
      (call $variables (i32.const 0))
      (call $arguments (i32.const 8))
      (call $directories (i32.const 16))
      ;; An error is a 1, then its code: access-denied is 1.
      (call $socket (i32.const 0) (i32.const 24))
      (i32.or
        (i32.or (i32.load (i32.const 4)) (i32.load (i32.const 12)))
        (i32.or
          (i32.load (i32.const 20))
          (i32.ne
            (i32.const 0x101)
            (i32.or
              (i32.shl (i32.load8_u (i32.const 24)) (i32.const 8))
              (i32.load8_u (i32.const 28))))))
      (i32.ne (i32.const 0))))
  (core instance $probe (instantiate $probe (with "env" (instance
    (export "memory" (memory $memory "memory"))
    (export "variables" (func $variables))
    (export "arguments" (func $arguments))
    (export "directories" (func $directories))
    (export "socket" (func $socket))))))

  (func $run (result (result)) (canon lift (core func $probe "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))
