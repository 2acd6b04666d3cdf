#if canImport(UIKit) && !os(watchOS)
import UIKit

extension TvlmSession {
    /// Encodes a picture as it is meant to be seen: turned and mirrored as its orientation says, on white where it is transparent.
    /// `side` is that of a `CGImage`.
    public func image(_ image: UIImage, side: Int = 0) async throws -> TvlmImage {
        if image.imageOrientation == .up, let plain = image.cgImage {
            return try await self.image(plain, side: side)
        }
        let format = UIGraphicsImageRendererFormat()
        format.scale = image.scale
        format.opaque = true
        format.preferredRange = .standard
        // Drawing turns it, and makes pixels of pictures that are recipes of Core Image.
        let drawn = UIGraphicsImageRenderer(size: image.size, format: format).image { context in
            UIColor.white.setFill()
            context.fill(CGRect(origin: .zero, size: image.size))
            image.draw(at: .zero)
        }
        guard let upright = drawn.cgImage else {
            throw TvlmError(code: .image, message: "image: \(image.size.width) x \(image.size.height) points cannot be drawn")
        }
        return try await self.image(upright, side: side)
    }
}
#elseif canImport(AppKit)
import AppKit

extension TvlmSession {
    /// Encodes a picture in its largest representation, on white where it is transparent.
    /// `side` is that of a `CGImage`.
    public func image(_ image: NSImage, side: Int = 0) async throws -> TvlmImage {
        let sizes = image.representations.map { CGSize(width: $0.pixelsWide, height: $0.pixelsHigh) }
        // Drawings without pixels of their own are as large as they say in points.
        let largest = sizes.filter { $0.width > 0 && $0.height > 0 }.max { $0.width * $0.height < $1.width * $1.height }
        var place = CGRect(origin: .zero, size: largest ?? image.size)
        guard let plain = image.cgImage(forProposedRect: &place, context: nil, hints: nil) else {
            throw TvlmError(code: .image, message: "image: an NSImage without a picture")
        }
        return try await self.image(plain, side: side)
    }
}
#endif
