package edgepack.testing;

import edgepack.core.Start;
import java.util.HashMap;
import java.util.Map;

/** What an app remembers, for as long as a test runs. */
public final class MapMemory implements Start.Memory {
  private final Map<String, String> values = new HashMap<>();

  @Override
  public String get(String key) {
    return values.get(key);
  }

  @Override
  public void put(String key, String value) {
    values.put(key, value);
  }
}
