package phone;

import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.Properties;
import javax.xml.parsers.DocumentBuilderFactory;
import org.w3c.dom.Element;

/** The APK's resources, of which a Python test has made a file of properties. */
public final class Resources {
  private final Properties told = new Properties();

  Resources(File file) throws IOException {
    try (InputStream stream = new FileInputStream(file)) {
      told.load(stream);
    }
  }

  public String string(int id) {
    return found("string/" + id);
  }

  /** The number of a view's id. */
  public int id(String name) {
    return Integer.decode(found("id/" + name));
  }

  /** The name of a view's id, "" for a view without one. */
  public String name(int id) {
    return id == 0 ? "" : found("name/" + id);
  }

  public Element layout(int id) {
    try {
      byte[] text = found("layout/" + id).getBytes(StandardCharsets.UTF_8);
      return DocumentBuilderFactory.newInstance()
          .newDocumentBuilder()
          .parse(new ByteArrayInputStream(text))
          .getDocumentElement();
    } catch (Exception error) {
      throw new IllegalStateException("layout " + id, error);
    }
  }

  private String found(String key) {
    String value = told.getProperty(key);
    if (value == null) throw new IllegalArgumentException("The APK has no resource " + key);
    return value;
  }
}
