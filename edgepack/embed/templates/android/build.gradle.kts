plugins {
    id("com.android.library")
}

// Outside of this folder, in which edgepack alone writes.
layout.buildDirectory.set(rootProject.layout.buildDirectory.dir("edgemodel"))

android {
    namespace = "edgepack.model"
    compileSdk = 36

    defaultConfig {
        minSdk = 24
        consumerProguardFiles("consumer-rules.pro")
    }

    // The model is mapped into memory where it lies. The app that takes this module in needs the same line.
    androidResources {
        noCompress += "tflite"
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_1_8
        targetCompatibility = JavaVersion.VERSION_1_8
    }
}

dependencies {
    // {measured} is what the bundle was measured with, on Linux. For Android, 1.4.0 asks for Android 8
    // (API 26) and 1.4.1, the same line of the interpreter, for API 21; the self-test holds it to the
    // recorded lists.
    api("com.google.ai.edge.litert:litert:{litert}")
}
