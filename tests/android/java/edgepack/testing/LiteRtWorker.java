package edgepack.testing;

import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.Stream;

/**
 * LiteRT in a Python process: litert_worker.py, whose path is the system property {@code edgepack.worker},
 * run by {@code edgepack.python}.
 */
public final class LiteRtWorker implements AutoCloseable {
  /** The model's tensors by name, the output last. */
  public final Map<String, Told> tensors = new LinkedHashMap<>();

  private final Process process;
  private final DataOutputStream out;
  private final DataInputStream in;

  /** What LiteRT says of a tensor. */
  public static final class Told {
    public final String dtype;
    public final int[] shape;
    public final float scale;
    public final int zeroPoint;

    Told(String[] words) {
      dtype = words[1];
      shape = Stream.of(words[2].split(",")).mapToInt(Integer::parseInt).toArray();
      scale = Float.parseFloat(words[3]);
      zeroPoint = Integer.parseInt(words[4]);
    }
  }

  public LiteRtWorker(ByteBuffer model) {
    try {
      process =
          new ProcessBuilder(System.getProperty("edgepack.python"), System.getProperty("edgepack.worker"))
              .redirectError(ProcessBuilder.Redirect.INHERIT)
              .start();
      out = new DataOutputStream(process.getOutputStream());
      in = new DataInputStream(process.getInputStream());
      byte[] content = new byte[model.remaining()];
      model.duplicate().get(content);
      out.writeInt(content.length);
      out.write(content);
      out.flush();
      for (String line : new String(answer(), StandardCharsets.UTF_8).split("\n")) {
        String[] words = line.split(" ");
        tensors.put(words[0], new Told(words));
      }
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  /** Returns the bytes of the output, little-endian; {@code queryOrNull} is null for a model without one. */
  public ByteBuffer run(int[] history, int[] queryOrNull) {
    try {
      write(history);
      if (queryOrNull != null) write(queryOrNull);
      out.flush();
      return ByteBuffer.wrap(answer()).order(ByteOrder.LITTLE_ENDIAN);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  private void write(int[] row) throws IOException {
    out.writeInt(row.length);
    for (int value : row) out.writeInt(value);
  }

  private byte[] answer() throws IOException {
    byte[] content = new byte[in.readInt()];
    in.readFully(content);
    return content;
  }

  @Override
  public void close() {
    process.destroy();
  }
}
