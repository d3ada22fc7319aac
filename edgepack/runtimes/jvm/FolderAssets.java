package edgepack.jvm;

import edgepack.core.Assets;
import edgepack.core.EdgepackException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;

/** The embedded files, out of a folder. */
public final class FolderAssets implements Assets {
  private final Path folder;

  public FolderAssets(Path folder) {
    this.folder = folder;
  }

  @Override
  public byte[] read(String name) {
    try {
      return Files.readAllBytes(folder.resolve(name));
    } catch (IOException error) {
      throw new EdgepackException(EdgepackException.Code.MISSING, name + " is not there.", error);
    }
  }

  @Override
  public ByteBuffer map(String name) {
    byte[] content = read(name);
    ByteBuffer direct = ByteBuffer.allocateDirect(content.length).order(ByteOrder.nativeOrder());
    direct.put(content).rewind();
    return direct;
  }
}
