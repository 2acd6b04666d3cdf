;; The program of runtime-min/tests/common (`Fake`), as kernels: a decoder whose cache holds one number for each position, and whose
;; next token is a function of all of them. Slots and sizes are those of its `Info`; phases are two visions, prefill, decode, verify,
;; and logits, which have nothing left to do.

;; How many units a step has.
(func $units (export "units") (param $phase i32) (param $index i32) (param $rows i32) (result i32)
  (if (i32.lt_u (local.get $phase) (i32.const 2)) (then (return (i32.add (local.get $phase) (i32.const 2)))))
  (if (i32.eq (local.get $phase) (i32.const 5)) (then (return (i32.const 1))))
  (if (i32.eqz (local.get $index)) (then (return (local.get $rows))))
  (return (i32.const 1)))

;; Units first..last of a step.
(func $step (export "step") (param $phase i32) (param $index i32) (param $first i32) (param $last i32) (param $start i32) (param $rows i32) (param $member i32)
  (block $end
    (br_if $end (i32.eq (local.get $phase) (i32.const 5)))
    (loop $next
      (br_if $end (i32.ge_u (local.get $first) (local.get $last)))
      (if (i32.lt_u (local.get $phase) (i32.const 2))
        (then (call $vision (local.get $phase) (local.get $index) (local.get $first)))
        (else (if (i32.eqz (local.get $index))
          (then (call $remember (local.get $first) (i32.add (local.get $start) (local.get $first))))
          (else (if (i32.eq (local.get $phase) (i32.const 4))
            (then (call $heads (i32.const 0) (local.get $start) (local.get $rows)))
            (else (call $heads (i32.sub (local.get $rows) (i32.const 1)) (local.get $start) (local.get $rows))))))))
      (local.set $first (i32.add (local.get $first) (i32.const 1)))
      (br $next))))

;; A row of an image: the sum of all its numbers, and of the row's own in the last step.
(func $vision (param $phase i32) (param $index i32) (param $row i32) (local $at i32) (local $end i32) (local $sum f32)
  (local.set $at (global.get $arena))
  (local.set $end (i32.add (local.get $at) (i32.mul (i32.const 12) (i32.mul (i32.add (i32.const 4) (i32.mul (i32.const 2) (local.get $phase))) (i32.add (i32.const 4) (i32.mul (i32.const 2) (local.get $phase)))))))
  (loop $next
    (local.set $sum (f32.add (local.get $sum) (f32.load (local.get $at))))
    (local.set $at (i32.add (local.get $at) (i32.const 4)))
    (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
  (if (i32.eq (local.get $index) (i32.const 1)) (then (local.set $sum (f32.add (local.get $sum) (f32.convert_i32_u (local.get $row))))))
  (local.set $at (i32.add (global.get $arena) (i32.add (i32.const 448) (i32.mul (local.get $row) (i32.const 64)))))
  (local.set $end (i32.add (local.get $at) (i32.const 32)))
  (loop $fill
    (f32.store (local.get $at) (local.get $sum))
    (local.set $at (i32.add (local.get $at) (i32.const 4)))
    (br_if $fill (i32.lt_u (local.get $at) (local.get $end)))))

;; The cache at a position: the sum of a row.
(func $remember (param $row i32) (param $position i32) (local $at i32) (local $end i32) (local $sum f32)
  (local.set $at (i32.add (global.get $arena) (i32.add (i32.const 640) (i32.mul (local.get $row) (i32.const 32)))))
  (local.set $end (i32.add (local.get $at) (i32.const 32)))
  (loop $next
    (local.set $sum (f32.add (local.get $sum) (f32.load (local.get $at))))
    (local.set $at (i32.add (local.get $at) (i32.const 4)))
    (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
  (f32.store (i32.add (global.get $arena) (i32.add (i32.const 5312) (i32.mul (local.get $position) (i32.const 4)))) (local.get $sum)))

;; Logits and tokens of the rows from `row` on.
(func $heads (param $row i32) (param $start i32) (param $rows i32) (local $place i32)
  (block $end
    (loop $next
      (br_if $end (i32.ge_u (local.get $row) (local.get $rows)))
      (call $head (local.get $place) (i32.add (local.get $start) (local.get $row)))
      (local.set $place (i32.add (local.get $place) (i32.const 1)))
      (local.set $row (i32.add (local.get $row) (i32.const 1)))
      (br $next))))

(func $head (param $place i32) (param $position i32) (local $at i32) (local $end i32) (local $hash i32) (local $token i32)
  (local.set $hash (i32.const 7))
  (local.set $at (i32.add (global.get $arena) (i32.const 5312)))
  (local.set $end (i32.add (local.get $at) (i32.mul (i32.const 4) (local.get $position))))
  (loop $next
    (local.set $hash (i32.rotl (i32.mul (i32.xor (local.get $hash) (i32.trunc_f32_u (f32.load (local.get $at)))) (i32.const 0x9E3779B1)) (i32.const 13)))
    (local.set $at (i32.add (local.get $at) (i32.const 4)))
    (br_if $next (i32.eqz (i32.gt_u (local.get $at) (local.get $end)))))
  (local.set $token (i32.add (i32.const 97) (i32.rem_u (i32.shr_u (local.get $hash) (i32.const 12)) (i32.const 26))))
  (if (i32.eqz (i32.rem_u (i32.shr_u (local.get $hash) (i32.const 8)) (i32.const 9))) (then (local.set $token (i32.const 258))))
  (local.set $at (i32.add (global.get $arena) (i32.add (i32.const 896) (i32.mul (local.get $place) (i32.const 1088)))))
  (local.set $hash (local.get $at))
  (local.set $end (i32.add (local.get $at) (i32.const 1048)))
  (loop $fill
    (f32.store (local.get $at) (f32.const 0))
    (local.set $at (i32.add (local.get $at) (i32.const 4)))
    (br_if $fill (i32.lt_u (local.get $at) (local.get $end))))
  (f32.store (i32.add (local.get $hash) (i32.mul (local.get $token) (i32.const 4))) (f32.const 9))
  (i32.store (i32.add (global.get $arena) (i32.add (i32.const 5248) (i32.mul (local.get $place) (i32.const 4)))) (local.get $token)))

(func $embed (export "embed") (param $id i32) (param $row i32) (local $at i32)
  (local.set $at (i32.add (global.get $arena) (i32.add (i32.const 640) (i32.mul (local.get $row) (i32.const 32)))))
  (f32.store (local.get $at) (f32.convert_i32_u (local.get $id)))
  (f32.store (i32.add (local.get $at) (i32.const 4)) (f32.const 0))
  (f32.store (i32.add (local.get $at) (i32.const 8)) (f32.const 0))
  (f32.store (i32.add (local.get $at) (i32.const 12)) (f32.const 0))
  (f32.store (i32.add (local.get $at) (i32.const 16)) (f32.const 0))
  (f32.store (i32.add (local.get $at) (i32.const 20)) (f32.const 0))
  (f32.store (i32.add (local.get $at) (i32.const 24)) (f32.const 0))
  (f32.store (i32.add (local.get $at) (i32.const 28)) (f32.const 0)))

;; All steps of a phase; 1 if it was cancelled.
(func $run (export "run") (param $phase i32) (param $start i32) (param $rows i32) (param $member i32) (param $count i32) (result i32) (local $index i32)
  (loop $next
    (call $step (local.get $phase) (local.get $index) (i32.const 0) (call $units (local.get $phase) (local.get $index) (local.get $rows)) (local.get $start) (local.get $rows) (i32.const 0))
    (if (i32.load (global.get $control)) (then (return (i32.const 1))))
    (local.set $index (i32.add (local.get $index) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $index) (i32.const 2))))
  (return (i32.const 0)))
