package edgepack.core;

import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;

/** SHA-256 in small hexadecimal digits. */
final class Sha256 {
  private static final String DIGITS = "0123456789abcdef";

  private Sha256() {}

  /** Returns the digest of what remains in a buffer, whose position stays. */
  static String of(ByteBuffer content) {
    MessageDigest digest;
    try {
      digest = MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException error) {
      throw new AssertionError(error); // every Java and every Android has it
    }
    digest.update(content.duplicate());
    StringBuilder out = new StringBuilder();
    for (byte one : digest.digest()) out.append(DIGITS.charAt(one >> 4 & 15)).append(DIGITS.charAt(one & 15));
    return out.toString();
  }
}
