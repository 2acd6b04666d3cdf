import CTvlm
import Foundation

/// What encodes pictures instead of the processor, such as `TvlmCoreML`; see `TvlmModel.Options.delegate`.
public protocol TvlmDelegate: AnyObject, Sendable {
    /// What messages call it.
    var name: String { get }

    /// Encodes a picture of `side` x `side` pixels, three bytes each: red, green, blue. Fills all of `rows`, which has
    /// `tokens` times `hidden` numbers, a row after the other.
    ///
    /// False: it cannot, and the processor encodes this picture. Called on the queue of a session, and for several sessions
    /// at once.
    func vision(
        _ rgb: UnsafeBufferPointer<UInt8>, side: Int, rows: UnsafeMutableBufferPointer<Float>, tokens: Int, hidden: Int
    ) -> Bool
}

/// A delegate as the library takes it: an address that stays where it is for as long as the model lives.
final class HeldDelegate: @unchecked Sendable {
    /// For `tvlm_open_options`.
    let pointer: UnsafeMutablePointer<tvlm_delegate>

    private let delegate: TvlmDelegate
    private let name: UnsafeMutablePointer<CChar>

    init(_ delegate: TvlmDelegate) {
        self.delegate = delegate
        name = strdup(delegate.name)
        pointer = UnsafeMutablePointer.allocate(capacity: 1)
        pointer.initialize(to: tvlm_delegate())
        pointer.pointee.size = MemoryLayout<tvlm_delegate>.stride
        pointer.pointee.name = UnsafePointer(name)
        pointer.pointee.context = Unmanaged.passUnretained(self).toOpaque()
        pointer.pointee.vision = { context, rgb, side, rows, tokens, hidden in
            guard let context = context, let rgb = rgb, let rows = rows else {
                return 1
            }
            let held = Unmanaged<HeldDelegate>.fromOpaque(context).takeUnretainedValue()
            let (side, tokens, hidden) = (Int(side), Int(tokens), Int(hidden))
            let pixels = UnsafeBufferPointer(start: rgb, count: side * side * 3)
            let filled = UnsafeMutableBufferPointer(start: rows, count: tokens * hidden)
            return held.delegate.vision(pixels, side: side, rows: filled, tokens: tokens, hidden: hidden) ? 0 : 1
        }
    }

    deinit {
        pointer.deinitialize(count: 1)
        pointer.deallocate()
        free(name)
    }
}
