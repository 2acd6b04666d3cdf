import CTvlm
import CoreVideo

/// Pictures as cameras give them: a plane of luma and one of chroma.
extension Pixels {
    /// Takes a buffer of the formats 420f and 420v as it is; nil for others, and for the matrix of other standards than BT.601.
    static func withPlanes<T>(_ buffer: CVPixelBuffer, _ body: (inout tvlm_pixels) throws -> T) throws -> T? {
        let format: UInt32
        switch CVPixelBufferGetPixelFormatType(buffer) {
        case kCVPixelFormatType_420YpCbCr8BiPlanarFullRange: format = nv12
        case kCVPixelFormatType_420YpCbCr8BiPlanarVideoRange: format = nv12Video
        default: return nil
        }
        guard CVPixelBufferGetPlaneCount(buffer) == 2, isOldMatrix(buffer) else { return nil }
        guard CVPixelBufferLockBaseAddress(buffer, .readOnly) == kCVReturnSuccess else {
            throw TvlmError(code: .image, message: "pixel buffer: its pixels cannot be read")
        }
        defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
        guard
            let luma = CVPixelBufferGetBaseAddressOfPlane(buffer, 0),
            let chroma = CVPixelBufferGetBaseAddressOfPlane(buffer, 1)
        else {
            throw TvlmError(code: .image, message: "pixel buffer: has no pixels")
        }
        var pixels = tvlm_pixels()
        pixels.size = MemoryLayout<tvlm_pixels>.stride
        pixels.data = UnsafePointer(luma.assumingMemoryBound(to: UInt8.self))
        pixels.width = UInt32(CVPixelBufferGetWidth(buffer))
        pixels.height = UInt32(CVPixelBufferGetHeight(buffer))
        pixels.stride = CVPixelBufferGetBytesPerRowOfPlane(buffer, 0)
        pixels.format = format
        pixels.chroma = UnsafePointer(chroma.assumingMemoryBound(to: UInt8.self))
        pixels.chroma_stride = CVPixelBufferGetBytesPerRowOfPlane(buffer, 1)
        return try body(&pixels)
    }

    /// Whether luma and chroma are those of BT.601, which is also what buffers have that do not say.
    private static func isOldMatrix(_ buffer: CVPixelBuffer) -> Bool {
        guard
            let attachments = CVBufferCopyAttachments(buffer, .shouldPropagate) as? [CFString: Any],
            let matrix = attachments[kCVImageBufferYCbCrMatrixKey] as? String
        else { return true }
        return matrix == kCVImageBufferYCbCrMatrix_ITU_R_601_4 as String
    }

    /// `TVLM_FORMAT_NV12` and `TVLM_FORMAT_NV12_VIDEO`.
    private static let nv12: UInt32 = 4
    private static let nv12Video: UInt32 = 5
}
