package edgepack.android;

import edgepack.core.EdgepackException;
import edgepack.core.Engine;

/** Which engine runs the model. */
public final class Engines {
  /** The system property that names another one: a class that is an {@link Engine.Factory}. */
  public static final String PROPERTY = "edgepack.engine";

  private Engines() {}

  /** Returns LiteRT on one thread, or what {@link #PROPERTY} names; then no class of LiteRT is loaded. */
  public static Engine.Factory standard() {
    String named = System.getProperty(PROPERTY);
    if (named == null) return LiteRtEngine.cpu();
    try {
      return Class.forName(named).asSubclass(Engine.Factory.class).getDeclaredConstructor().newInstance();
    } catch (ReflectiveOperationException | ClassCastException error) {
      String message = PROPERTY + " is " + named + ", which is no class of an engine's factory.";
      throw new EdgepackException(EdgepackException.Code.ENGINE, message, error);
    }
  }
}
