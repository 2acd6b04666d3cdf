import CoreML
import Foundation

#if SWIFT_PACKAGE
    import Tvlm
#endif

/// The vision tower on Core ML, so that the Neural Engine or the GPU encodes pictures:
///
///     var options = TvlmModel.Options()
///     options.delegate = try await TvlmCoreML.load()
///     let model = try TvlmModel(contentsOf: TvlmWeights.url, options: options)
///
/// It computes with 16-bit floats where the library has 32 bits: rows differ a little, and so may answers. A picture that Core
/// ML fails on is encoded by the processor; after one whose rows are not all finite, all are.
public final class TvlmCoreML: TvlmDelegate, @unchecked Sendable {
    /// Why there is no delegate.
    public struct Failure: Error, Equatable, Sendable, LocalizedError, CustomStringConvertible {
        public let description: String

        public var errorDescription: String? { description }
    }

    public let name = "coreml"

    /// Pixels on each side of a picture.
    public let imageSide: Int
    /// Rows of a picture.
    public let tokens: Int
    /// Numbers of a row.
    public let hidden: Int

    private let model: MLModel
    /// Core ML asks that a model is used by one thread at a time.
    private let lock = NSLock()

    /// Loads the model of this package, off the main thread. The first time it is compiled for this device, which takes
    /// seconds to minutes; what came of it is kept among the app's caches.
    public static func load(computeUnits: MLComputeUnits = .all) async throws -> TvlmCoreML {
        try await load(contentsOf: resource(), computeUnits: computeUnits)
    }

    /// As `load`, for a model that was downloaded: an `.mlpackage`, or an `.mlmodelc`, which is compiled already.
    public static func load(contentsOf url: URL, computeUnits: MLComputeUnits = .all) async throws -> TvlmCoreML {
        try await Task.detached(priority: .userInitiated) {
            let configuration = MLModelConfiguration()
            configuration.computeUnits = computeUnits
            return try TvlmCoreML(compiled(url, configuration))
        }.value
    }

    /// Takes a model that the app has loaded itself.
    public init(_ model: MLModel) throws {
        let inputs = model.modelDescription.inputDescriptionsByName
        let outputs = model.modelDescription.outputDescriptionsByName
        guard
            let image = inputs["image"]?.multiArrayConstraint?.shape.map({ $0.intValue }),
            let rows = outputs["rows"]?.multiArrayConstraint?.shape.map({ $0.intValue }),
            image.count == 4, image[0] == 1, image[1] == 3, image[2] == image[3], rows.count == 3, rows[0] == 1
        else {
            throw Failure(description: "Core ML: no model from image [1, 3, side, side] to rows [1, tokens, hidden]")
        }
        self.model = model
        imageSide = image[2]
        tokens = rows[1]
        hidden = rows[2]
    }

    public func vision(
        _ rgb: UnsafeBufferPointer<UInt8>, side: Int, rows: UnsafeMutableBufferPointer<Float>, tokens: Int, hidden: Int
    ) -> Bool {
        guard
            side == imageSide, tokens == self.tokens, hidden == self.hidden,
            rgb.count == side * side * 3, rows.count == tokens * hidden
        else {
            return false
        }
        lock.lock()
        defer { lock.unlock() }
        return autoreleasepool {
            do {
                let given = MLFeatureValue(multiArray: try planes(rgb))
                let features = try MLDictionaryFeatureProvider(dictionary: ["image": given])
                let result = try model.prediction(from: features)
                guard let made = result.featureValue(for: "rows")?.multiArrayValue else {
                    return false
                }
                return fill(rows, from: made)
            } catch {
                return false
            }
        }
    }

    /// Pixels as one plane for each color.
    private func planes(_ rgb: UnsafeBufferPointer<UInt8>) throws -> MLMultiArray {
        let side = NSNumber(value: imageSide)
        let array = try MLMultiArray(shape: [1, 3, side, side], dataType: .float32)
        let values = array.dataPointer.assumingMemoryBound(to: Float.self)
        let strides = array.strides.map { $0.intValue }
        for color in 0..<3 {
            for y in 0..<imageSide {
                let line = values + color * strides[1] + y * strides[2]
                for x in 0..<imageSide {
                    line[x * strides[3]] = Float(rgb[(y * imageSide + x) * 3 + color])
                }
            }
        }
        return array
    }

    /// Copies rows, whose memory may have gaps. The library looks at their numbers.
    private func fill(_ rows: UnsafeMutableBufferPointer<Float>, from made: MLMultiArray) -> Bool {
        let expected = [1, tokens, hidden].map { NSNumber(value: $0) }
        guard made.dataType == .float32, made.shape == expected else {
            return false
        }
        let values = made.dataPointer.assumingMemoryBound(to: Float.self)
        let strides = made.strides.map { $0.intValue }
        for row in 0..<tokens {
            for i in 0..<hidden {
                rows[row * hidden + i] = values[row * strides[1] + i * strides[2]]
            }
        }
        return true
    }

    /// The model among the resources: as Xcode compiled it, or as it was written.
    private static func resource() throws -> URL {
        #if SWIFT_PACKAGE
            let folder = Bundle.module.resourceURL?.appendingPathComponent("Model")
        #else
            let bundle = Bundle(for: TvlmCoreML.self).url(forResource: "TvlmCoreML", withExtension: "bundle")
            let folder = bundle.flatMap(Bundle.init(url:))?.resourceURL
        #endif
        let files = try folder.map {
            try FileManager.default.contentsOfDirectory(at: $0, includingPropertiesForKeys: nil)
        }
        for kind in ["mlmodelc", "mlpackage"] {
            if let found = files?.first(where: { $0.pathExtension == kind }) {
                return found
            }
        }
        throw Failure(description: "Core ML: no model is among the resources that this was built with")
    }

    /// Loads a model, after compiling it where that was not done before.
    private static func compiled(_ url: URL, _ configuration: MLModelConfiguration) throws -> MLModel {
        if url.pathExtension == "mlmodelc" {
            return try MLModel(contentsOf: url, configuration: configuration)
        }
        let kept = try place(of: url)
        // What another version of the system compiled may be refused, and is compiled again.
        if let model = try? MLModel(contentsOf: kept, configuration: configuration) {
            return model
        }
        let fresh = try MLModel.compileModel(at: url)
        try? FileManager.default.removeItem(at: kept)
        do {
            try FileManager.default.moveItem(at: fresh, to: kept)
        } catch {
            return try MLModel(contentsOf: fresh, configuration: configuration)
        }
        return try MLModel(contentsOf: kept, configuration: configuration)
    }

    /// Where the compiled model is kept: among caches, under the identifier of what it was compiled from.
    private static func place(of package: URL) throws -> URL {
        struct Manifest: Decodable {
            let rootModelIdentifier: String
        }
        let manifest = try Data(contentsOf: package.appendingPathComponent("Manifest.json"))
        let identifier = try JSONDecoder().decode(Manifest.self, from: manifest).rootModelIdentifier
        let caches = try FileManager.default.url(
            for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
        let folder = caches.appendingPathComponent("dev.tvlmc", isDirectory: true)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        return folder.appendingPathComponent("\(identifier).mlmodelc", isDirectory: true)
    }
}
