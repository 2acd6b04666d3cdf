import Foundation

/// The weight file as a resource of the app. Apps that download it instead leave this out.
public enum TvlmWeights {
    /// For `TvlmModel(contentsOf:)`. The file is mapped where it lies.
    public static let url: URL = {
        #if SWIFT_PACKAGE
            let found = Bundle.module.url(forResource: "weights", withExtension: "tvlm", subdirectory: "Weights")
        #else
            let resources = Bundle(for: Marker.self).url(forResource: "TvlmWeights", withExtension: "bundle")
            let found = resources.flatMap(Bundle.init(url:))?.url(forResource: "weights", withExtension: "tvlm")
        #endif
        guard let url = found else {
            fatalError("weights.tvlm is not among the resources that this was built with")
        }
        return url
    }()

    #if !SWIFT_PACKAGE
        /// Lies in the bundle that this is linked into.
        private final class Marker {}
    #endif
}
