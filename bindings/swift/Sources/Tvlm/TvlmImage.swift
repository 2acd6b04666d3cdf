import CTvlm
import CoreGraphics
import CoreImage
import CoreVideo
import Foundation

/// What a picture became, for all sessions of the model: see `TvlmSession.image`. It is never changed.
public final class TvlmImage: @unchecked Sendable {
    /// A `tvlm_image`.
    let handle: OpaquePointer

    init(_ handle: OpaquePointer) {
        self.handle = handle
    }

    deinit {
        tvlm_image_close(handle, nil)
    }
}

/// Pixels as the library takes them, while `body` runs.
enum Pixels {
    /// Draws a picture on white, in sRGB: red, green, blue and a byte that is not looked at.
    static func with<T>(_ image: CGImage, _ body: (inout tvlm_pixels) throws -> T) throws -> T {
        let layout = CGImageAlphaInfo.noneSkipLast.rawValue | CGBitmapInfo.byteOrder32Big.rawValue
        guard
            let space = CGColorSpace(name: CGColorSpace.sRGB),
            let context = CGContext(
                data: nil, width: image.width, height: image.height, bitsPerComponent: 8, bytesPerRow: 0, space: space,
                bitmapInfo: layout)
        else {
            throw TvlmError(code: .image, message: "image: no memory for \(image.width) x \(image.height) pixels")
        }
        let whole = CGRect(x: 0, y: 0, width: image.width, height: image.height)
        context.setFillColor(red: 1, green: 1, blue: 1, alpha: 1)
        context.fill(whole)
        context.draw(image, in: whole)
        guard let data = context.data else {
            throw TvlmError(code: .image, message: "image: a drawing without pixels")
        }
        var pixels = tvlm_pixels()
        pixels.size = MemoryLayout<tvlm_pixels>.stride
        pixels.data = UnsafePointer(data.assumingMemoryBound(to: UInt8.self))
        pixels.width = UInt32(image.width)
        pixels.height = UInt32(image.height)
        pixels.stride = context.bytesPerRow
        pixels.format = rgba8
        // The context owns the pixels.
        return try withExtendedLifetime(context) { try body(&pixels) }
    }

    /// Takes a buffer of the format 32BGRA, 420f or 420v as it is; others go through Core Image.
    static func with<T>(_ buffer: CVPixelBuffer, _ body: (inout tvlm_pixels) throws -> T) throws -> T {
        if let done = try withPlanes(buffer, body) { return done }
        guard CVPixelBufferGetPixelFormatType(buffer) == kCVPixelFormatType_32BGRA else {
            let picture = CIImage(cvPixelBuffer: buffer)
            guard let image = converter.createCGImage(picture, from: picture.extent) else {
                throw TvlmError(code: .image, message: "pixel buffer: its format cannot be converted; ask for 32BGRA")
            }
            return try with(image, body)
        }
        guard CVPixelBufferLockBaseAddress(buffer, .readOnly) == kCVReturnSuccess else {
            throw TvlmError(code: .image, message: "pixel buffer: its pixels cannot be read")
        }
        defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
        guard let data = CVPixelBufferGetBaseAddress(buffer) else {
            throw TvlmError(code: .image, message: "pixel buffer: has no pixels")
        }
        var pixels = tvlm_pixels()
        pixels.size = MemoryLayout<tvlm_pixels>.stride
        pixels.data = UnsafePointer(data.assumingMemoryBound(to: UInt8.self))
        pixels.width = UInt32(CVPixelBufferGetWidth(buffer))
        pixels.height = UInt32(CVPixelBufferGetHeight(buffer))
        pixels.stride = CVPixelBufferGetBytesPerRow(buffer)
        pixels.format = bgra8
        return try body(&pixels)
    }

    /// `TVLM_FORMAT_RGBA8` and `TVLM_FORMAT_BGRA8`.
    private static let rgba8: UInt32 = 1
    private static let bgra8: UInt32 = 2

    /// Dear to make; may be used by several threads at once.
    private static let converter = CIContext()
}
