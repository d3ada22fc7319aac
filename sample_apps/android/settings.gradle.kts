pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}

dependencyResolutionManagement {
    repositoriesMode.set(RepositoriesMode.FAIL_ON_PROJECT_REPOS)
    repositories {
        google()
        mavenCentral()
    }
}

rootProject.name = "shop"
include(":app", ":edgemodel")

require(settingsDir.resolve("edgemodel/build.gradle.kts").isFile) {
    "No model is embedded here yet. Run: edgepack embed BUNDLE --into $settingsDir --platform android"
}
