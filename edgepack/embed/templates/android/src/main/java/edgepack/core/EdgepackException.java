package edgepack.core;

/** Why there are no recommendations; the message is a sentence for the app's developer. */
public final class EdgepackException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /** What kind of failure it is. */
  public enum Code {
    /** An asset is not in the app. */
    MISSING,
    /** The model was compressed by the app's build, so it cannot be mapped into memory. */
    COMPRESSED,
    /** An asset is not the file that was embedded. */
    HASH_MISMATCH,
    /** An asset cannot be read as what it should be. */
    MALFORMED,
    /** The engine could not be opened, or failed. */
    ENGINE
  }

  /** What kind of failure it is. */
  public final Code code;

  public EdgepackException(Code code, String message) {
    this(code, message, null);
  }

  public EdgepackException(Code code, String message, Throwable cause) {
    super(message, cause);
    this.code = code;
  }
}
