package android.content.res;

import java.io.Closeable;
import java.io.File;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.IOException;

public class AssetFileDescriptor implements Closeable {
  private final FileInputStream file;
  private final FileDescriptor descriptor;
  private final long offset;
  private final long size;

  AssetFileDescriptor(File apk, long offset, long size) throws IOException {
    this.file = new FileInputStream(apk);
    this.descriptor = file.getFD();
    this.offset = offset;
    this.size = size;
  }

  public FileDescriptor getFileDescriptor() {
    return descriptor;
  }

  public long getStartOffset() {
    return offset;
  }

  public long getDeclaredLength() {
    return size;
  }

  @Override
  public void close() throws IOException {
    file.close();
  }
}
