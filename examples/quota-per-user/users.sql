-- The limits of users: recipients a day. Who is not here has the limit of the configuration file.
CREATE TABLE IF NOT EXISTS user_config (
    address VARCHAR(255) NOT NULL PRIMARY KEY,
    config TEXT NOT NULL
);
INSERT INTO user_config VALUES ('newsletter@example.org', '{"quota": 10000}');
INSERT INTO user_config VALUES ('trainee@example.org', '{"quota": 5}');
