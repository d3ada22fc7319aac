package edgepack.core;

import java.nio.ByteBuffer;

/** Where the embedded files are read from; names are those of {@link Contract#files}. */
public interface Assets {
  /** Returns the whole file. Throws EdgepackException when it is missing. */
  byte[] read(String name);

  /** Returns the whole file as a direct buffer, mapped where that can be. Throws as {@link #read}. */
  ByteBuffer map(String name);
}
