console.log("app VERSION as", process.getuid(), process.env.NODE_ENV);
