package edgepack.android;

import android.content.res.AssetFileDescriptor;
import android.content.res.AssetManager;
import edgepack.core.Assets;
import edgepack.core.EdgepackException;
import java.io.ByteArrayOutputStream;
import java.io.FileInputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;

/** The files in {@code assets/edgepack} of this app. */
final class AndroidAssets implements Assets {
  private static final String FOLDER = "edgepack/";

  private final AssetManager assets;

  AndroidAssets(AssetManager assets) {
    this.assets = assets;
  }

  @Override
  public byte[] read(String name) {
    try (InputStream file = assets.open(FOLDER + name)) {
      ByteArrayOutputStream content = new ByteArrayOutputStream();
      byte[] part = new byte[1 << 16];
      for (int size = file.read(part); size >= 0; size = file.read(part)) content.write(part, 0, size);
      return content.toByteArray();
    } catch (IOException error) {
      String message = "assets/" + FOLDER + name + " is not in this app; run edgepack embed again.";
      throw new EdgepackException(EdgepackException.Code.MISSING, message, error);
    }
  }

  @Override
  public ByteBuffer map(String name) {
    try (AssetFileDescriptor file = assets.openFd(FOLDER + name);
        FileInputStream stream = new FileInputStream(file.getFileDescriptor());
        FileChannel channel = stream.getChannel()) {
      return channel.map(FileChannel.MapMode.READ_ONLY, file.getStartOffset(), file.getDeclaredLength());
    } catch (FileNotFoundException error) {
      throw unmapped(name, error);
    } catch (IOException error) {
      String message = name + " cannot be mapped into memory.";
      throw new EdgepackException(EdgepackException.Code.MISSING, message, error);
    }
  }

  /** Tells a compressed asset, which can be read but has no place in the APK, from one that is not there. */
  private EdgepackException unmapped(String name, IOException cause) {
    read(name);
    String message =
        name
            + " was compressed by the app's build, so it cannot be mapped into memory; write"
            + " android { androidResources { noCompress += \"tflite\" } } into the app's build.gradle.kts.";
    return new EdgepackException(EdgepackException.Code.COMPRESSED, message, cause);
  }
}
