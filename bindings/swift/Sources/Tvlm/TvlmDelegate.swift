import CTvlm
import Foundation

/// What encodes pictures instead of the processor, such as `TvlmCoreML`; see `TvlmModel.Options.delegate`.
public protocol TvlmDelegate: AnyObject, Sendable {
    /// What messages call it.
    var name: String { get }

    /// Encodes a picture of `side` x `side` pixels, three bytes each: red, green, blue. Fills all of `rows`, which has
    /// `tokens` times `hidden` numbers, a row after the other.
    ///
    /// False: it cannot, and the processor encodes this picture; the next one is offered again. After rows that are not all
    /// finite numbers it is not called again. Called on the queue of a session, and for several sessions at once.
    func vision(
        _ rgb: UnsafeBufferPointer<UInt8>, side: Int, rows: UnsafeMutableBufferPointer<Float>, tokens: Int, hidden: Int
    ) -> Bool
}

/// A delegate as the library takes it: it is called until the model and all of its sessions are closed, so the model holds this.
final class HeldDelegate: @unchecked Sendable {
    private let delegate: TvlmDelegate

    init(_ delegate: TvlmDelegate) {
        self.delegate = delegate
    }

    /// Calls `body` with what `tvlm_open_options` takes, which the library copies.
    func with<T>(_ body: (UnsafePointer<tvlm_delegate>) throws -> T) rethrows -> T {
        try delegate.name.withCString { name in
            var given = tvlm_delegate()
            given.size = MemoryLayout<tvlm_delegate>.stride
            given.name = name
            given.context = Unmanaged.passUnretained(self).toOpaque()
            given.vision = { context, rgb, side, rows, tokens, hidden in
                guard let context = context, let rgb = rgb, let rows = rows else {
                    return 1
                }
                let held = Unmanaged<HeldDelegate>.fromOpaque(context).takeUnretainedValue()
                let (side, tokens, hidden) = (Int(side), Int(tokens), Int(hidden))
                let pixels = UnsafeBufferPointer(start: rgb, count: side * side * 3)
                let filled = UnsafeMutableBufferPointer(start: rows, count: tokens * hidden)
                return held.delegate.vision(pixels, side: side, rows: filled, tokens: tokens, hidden: hidden) ? 0 : 1
            }
            return try withUnsafePointer(to: &given, body)
        }
    }
}
