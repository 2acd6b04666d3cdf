import CTvlm
import Foundation

/// What went wrong: a number for programs, and a message that says what was found, what was expected and what to do.
public struct TvlmError: Error, Equatable, Sendable, LocalizedError, CustomStringConvertible {
    /// What is wrong. Later versions of the library may have more.
    public struct Code: RawRepresentable, Hashable, Sendable {
        public let rawValue: Int32

        public init(rawValue: Int32) {
            self.rawValue = rawValue
        }

        /// The system refused a file.
        public static let file = Code(rawValue: 1)
        /// The weight file ends early: download it again.
        public static let weightsTruncated = Code(rawValue: 2)
        /// The weight file goes on after its end.
        public static let weightsOverlong = Code(rawValue: 3)
        /// It is some other file.
        public static let notWeights = Code(rawValue: 4)
        /// A weight file of a version that this library does not read.
        public static let weightsFormat = Code(rawValue: 5)
        /// A checksum differs.
        public static let weightsDamaged = Code(rawValue: 6)
        /// The weights of another library.
        public static let weightsWrongBuild = Code(rawValue: 7)
        /// A part of the weight file is missing or impossible.
        public static let weightsSection = Code(rawValue: 8)
        /// The tokenizer's tables contradict themselves.
        public static let tokenizer = Code(rawValue: 9)
        /// The processor lacks what the code needs.
        public static let cpu = Code(rawValue: 10)
        /// No such instruction-set level in this library.
        public static let unknownLevel = Code(rawValue: 11)
        /// There is not enough memory.
        public static let outOfMemory = Code(rawValue: 12)
        /// A picture that cannot be used.
        public static let image = Code(rawValue: 13)
        /// The conversation would not fit.
        public static let promptTooLong = Code(rawValue: 14)
        /// Nothing was asked.
        public static let emptyPrompt = Code(rawValue: 15)
        /// A token that the model does not have.
        public static let tokenOutOfRange = Code(rawValue: 16)
        /// An argument that is not allowed.
        public static let argument = Code(rawValue: 17)
        /// The work was given up, as somebody asked for.
        public static let cancelled = Code(rawValue: 18)
        /// A thread failed: open a new session.
        public static let poisoned = Code(rawValue: 19)
        /// The library contradicts itself: a bug.
        public static let program = Code(rawValue: 20)
        /// The session works for another caller.
        public static let busy = Code(rawValue: 21)
        /// Worth a report.
        public static let bug = Code(rawValue: 22)
        /// A saved conversation that is cut short or changed.
        public static let savedDamaged = Code(rawValue: 23)
        /// No saved conversation of this model and build.
        public static let savedForeign = Code(rawValue: 24)
    }

    public let code: Code
    public let message: String

    public var description: String { message }
    public var errorDescription: String? { message }

    /// Throws what a function of the library says went wrong.
    static func check(_ call: (UnsafeMutablePointer<tvlm_error>) -> Int32) throws {
        var error = tvlm_error()
        error.size = MemoryLayout<tvlm_error>.stride
        let code = withUnsafeMutablePointer(to: &error) { call($0) }
        if code == 0 {
            return
        }
        let message = withUnsafeBytes(of: &error.message) { bytes in
            String(decoding: bytes.prefix(while: { $0 != 0 }), as: UTF8.self)
        }
        throw TvlmError(code: Code(rawValue: code), message: message)
    }
}
